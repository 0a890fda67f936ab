"""Reference statistics: mean and covariance of a data set's features, and what they were made of.

An .npz file with `mu` (D,) and `sigma` (D, D), as TTUR's and EDM's, and further: n, resolution, channels, dataset,
dataset_hash, extractor, weights_sha256, resize. Two sets of statistics compare only where these agree, so a difference
is refused by its name. Where a file holds mu and sigma alone nothing can be checked, which is said.
"""

import warnings
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.errors import UserError
from lorafusion.files import replacing

_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class About:
    """What statistics are of. None: the file does not say."""

    n: int | None = None
    resolution: int | None = None
    channels: int | None = None
    dataset: str | None = None  # name and split
    dataset_hash: str | None = None
    extractor: str | None = None
    weights_sha256: str | None = None
    resize: str | None = None


@dataclass(frozen=True)
class Statistics:
    """mean (D,), covariance (D, D): float64, on the CPU."""

    mean: Float[Tensor, "D"]
    covariance: Float[Tensor, "D D"]
    about: About = About()

    def write(self, file: Path) -> None:
        about = {key: value for key, value in asdict(self.about).items() if value is not None}
        with replacing(file) as temporary:
            np.savez(temporary, mu=self.mean.numpy(), sigma=self.covariance.numpy(), **about)

    def check(self, wanted: About, file: Path) -> None:
        """Raises UserError naming what ``file`` says otherwise than ``wanted``; what either does not say passes."""
        for key, mine in asdict(self.about).items():
            other = getattr(wanted, key)
            if mine is not None and other is not None and mine != other:
                raise UserError(f"reference={file}: {key} is {mine}, not {other}: these two do not compare")


def read(file: Path) -> Statistics:
    """Warns of a file that says nothing of its origin. Raises UserError for one that holds no statistics."""
    try:
        with np.load(file, allow_pickle=False) as content:
            mean, covariance = (torch.from_numpy(content[key].astype(np.float64)) for key in ("mu", "sigma"))
            about = {f.name: content[f.name].item() for f in fields(About) if f.name in content}
    except _DAMAGE as error:
        raise UserError(f"reference={file}: no .npz of mu and sigma: {' '.join(str(error).split())[:200]}") from error
    width = mean.numel()
    if mean.ndim != 1 or covariance.shape != (width, width):
        raise UserError(f"reference={file}: mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)} do not fit")
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise UserError(f"reference={file}: mu or sigma holds values that are not finite")
    if missing := [f.name for f in fields(About) if f.name not in about]:
        warnings.warn(
            f"{file} does not say its {', '.join(missing)}: nothing shows that it fits these samples", stacklevel=2
        )
    return Statistics(mean, covariance, About(**about))

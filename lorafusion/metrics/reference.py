"""What samples are compared with: statistics or features of real images, and where these come from.

Statistics of a data set are kept, so that whoever judges next finds them. Several processes all take the kept ones, or
make them together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lorafusion.errors import UserError
from lorafusion.metrics import statistics
from lorafusion.metrics.extractor.weights_file import sha256
from lorafusion.metrics.features import Extractor, Seen, look_with_bar
from lorafusion.metrics.statistics import About, Statistics

Origin = dict[str, Any]  # of a reference, for the record: file, dataset, n, sha256, resolution


@dataclass(frozen=True)
class Real:
    """Real images that serve as a reference.

    images:   uint8 (N, C, R, R).
    dataset:  name and split.
    sha256:   of what is in the set.
    decoded:  the folder that holds it; statistics are kept beside it.
    """

    images: np.ndarray
    dataset: str
    sha256: str
    decoded: Path


def from_file(extractor: Extractor, file: Path, shape: tuple[int, ...]) -> tuple[Statistics, Origin]:
    """Statistics that somebody made, for samples (..., C, R, R). Raises UserError where they do not fit."""
    found = statistics.read(file)
    found.check(_about(extractor, shape), file)
    return found, {
        "file": file.name,
        "file_sha256": sha256(file),
        "dataset": found.about.dataset,
        **_origin(found.about),
    }


def from_images(extractor: Extractor, real: Real, kind: str, device: torch.device) -> tuple[Statistics | Seen, Origin]:
    """kind: what the metric compares with, 'statistics' or 'features'; the latter are made anew."""
    about = _about(extractor, real.images.shape, n=len(real.images), dataset=real.dataset, dataset_hash=real.sha256)
    origin = {"file": None, "dataset": about.dataset, **_origin(about)}
    if kind == "features":
        return look_with_bar(extractor, real.images, {"features"}, device, "reference"), origin
    name = f"{real.decoded.name}-{extractor.name}-{extractor.weights_sha256[:8]}-{extractor.block}"
    path = real.decoded.parent / "statistics" / f"{name}.npz"
    return _kept(path, extractor, real.images, about, device), {**origin, "file": path.name}


def _kept(path: Path, extractor: Extractor, images: np.ndarray, about: About, device: torch.device) -> Statistics:
    """Statistics that were left here before, else made now."""
    found = _read(path, about)
    if all_say(found is not None, device):
        assert found is not None
        return found
    moments = look_with_bar(extractor, images, {"moments"}, device, "reference").moments
    assert moments is not None
    made = Statistics(moments.mean, moments.covariance, about)
    if not dist.is_initialized() or dist.get_rank() == 0:
        made.write(path)
    return made


def _about(extractor: Extractor, shape: tuple[int, ...], **more: Any) -> About:
    channels, side = shape[-3], shape[-1]
    known = {
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
    }
    return About(resolution=side, channels=channels, **known, **more)


def _read(path: Path, about: About) -> Statistics | None:
    """None where there are none, or damaged ones, or others."""
    try:
        found = statistics.read(path)
        found.check(about, path)
    except UserError:
        return None
    return found


def all_say(true: bool, device: torch.device) -> bool:
    """Whether it is true on all processes, which have to go the same way."""
    if not dist.is_initialized():
        return true
    flag = torch.tensor(int(true), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def _origin(about: About) -> Origin:
    return {"n": about.n, "sha256": about.dataset_hash, "resolution": about.resolution}

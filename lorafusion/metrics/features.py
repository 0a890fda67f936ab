"""What a network sees in a set of images: the same bits for any number of processes.

The last bits of a network's output depend on how many images it is given at once, and on an image's place among them.
So images are cut into blocks by their number, of one size that belongs to the extractor; the last one is filled up.
Process r of W takes blocks r, r + W, ...; what they found is put together in the order of the images.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor

from lorafusion.metrics.moments import Moments
from lorafusion.progress import Report, bar


class Extracted(NamedTuple):
    """features (B, D).  logits (B, K): of the extractor's classes, None where it has none."""

    features: Tensor
    logits: Tensor | None = None


class Extractor(Protocol):
    """name:            in metrics.json and in the name of a distance.
    resize:          how it brings images to its own size, in words: another way gives another distance.
    block:           images it is given at once.
    weights_sha256:  of its weights; known once they are loaded.
    """

    name: str
    resize: str
    block: int
    weights_sha256: str

    def load(self, device: torch.device) -> None:
        """Raises UserError where the weights are missing or do not fit."""
        ...

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Extracted: ...


@dataclass(frozen=True)
class Seen:
    """Of n images; what was not asked for is None.

    features (N, D), logits (N, K): float32 on the CPU, in the order of the images, the same on every process.
    """

    n: int
    moments: Moments | None = None
    features: Tensor | None = None
    logits: Tensor | None = None


def look(
    extractor: Extractor, images: np.ndarray, takes: Collection[str], device: torch.device, report: Report | None = None
) -> Seen:
    """Show uint8 images (N, C, R, R) to an extractor that is loaded on ``device``.

    takes:  'moments', 'features', 'logits': what to keep; moments alone take no memory that grows with N.

    Raises ValueError for images of another type, and for features that are no vectors.
    """
    check_images(images)
    n, rank, world_size = len(images), *ranks()
    blocks = range(-(-n // extractor.block))
    mine = blocks[rank::world_size]
    moments: Moments | None = None
    kept: dict[str, Tensor] = {}
    for done, k in enumerate(mine or blocks[:1], start=1):  # where there is no block left: to know the widths
        rows = slice(k * extractor.block, min((k + 1) * extractor.block, n))
        found = _block(extractor, images[rows], device)
        if moments is None:
            moments = Moments(found.features.shape[1], _sums_on(device))
            kept = {name: value.new_zeros(n, value.shape[1]).cpu() for name, value in _asked(found, takes).items()}
        if mine:
            if "moments" in takes:
                moments.add(found.features)
            for name, value in _asked(found, takes).items():
                kept[name][rows] = value.cpu()
        if report:
            report(done, len(mine) or 1)
    assert moments is not None
    for value in kept.values():
        sum_over_ranks(value, device)
    return Seen(n, moments.all_reduce() if "moments" in takes else None, kept.get("features"), kept.get("logits"))


def look_with_bar(
    extractor: Extractor, images: np.ndarray, takes: Collection[str], device: torch.device, name: str
) -> Seen:
    """``look``, with the progress of the first process on show. name: of the images."""
    if ranks()[0] > 0:
        return look(extractor, images, takes, device)
    with bar(f"features of {name}", unit="blocks") as report:
        return look(extractor, images, takes, device, report)


def check_images(images: np.ndarray) -> None:
    """Raises ValueError unless they are uint8 (N, C, R, R), C = 1 or 3, N >= 2. What is in them cannot be checked."""
    shape = images.shape
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, 0 .. 255; got {images.dtype}")
    if len(shape) != 4 or shape[0] < 2 or shape[1] not in (1, 3) or shape[2] != shape[3]:
        raise ValueError(f"images must be (N, C, R, R), N at least 2, C = 1 or 3; got {shape}")
    if images[:256].max() <= 1:
        raise ValueError("images must be uint8, 0 .. 255; these hold 0 and 1 alone: were floats cut off?")


@torch.no_grad()
def _block(extractor: Extractor, images: np.ndarray, device: torch.device) -> Extracted:
    """Of at most a block of images, which is filled up with black ones."""
    full = np.zeros((extractor.block, *images.shape[1:]), np.uint8)
    full[: len(images)] = images
    features, logits = extractor(torch.from_numpy(full).to(device))
    if features.ndim != 2 or len(features) != len(full):
        raise ValueError(
            f"extractor {extractor.name} gives features {tuple(features.shape)} for {len(full)} images; a vector for "
            f"each is wanted: ({len(full)}, D)"
        )
    return Extracted(features[: len(images)], None if logits is None else logits[: len(images)].float())


def _asked(found: Extracted, takes: Collection[str]) -> dict[str, Float[Tensor, "B _"]]:
    values = {"features": found.features.float(), "logits": found.logits}
    return {name: value for name, value in values.items() if name in takes and value is not None}


def ranks() -> tuple[int, int]:
    """rank, world_size"""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _sums_on(device: torch.device) -> torch.device:
    """Where sums in float64 can live."""
    return torch.device("cpu") if device.type == "mps" else device


def sum_over_ranks(rows: Tensor, device: torch.device) -> None:
    """In place: rows of the other processes, which are 0 here, so that nothing is rounded."""
    if ranks()[1] > 1:
        value = rows.to(device) if dist.get_backend() == "nccl" else rows
        dist.all_reduce(value)
        rows.copy_(value)

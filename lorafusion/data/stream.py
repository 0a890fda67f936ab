"""The order of training: an endless stream of permutations, cut into batches by position.

Position p of the stream is image p mod N of permutation p div N, and permutation e follows from (seed, e) alone. So a
run that stops at position p resumes at p, whatever its batch size, its number of workers or of devices was. There is no
generator state and no epoch to restore.
"""

import ctypes
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lorafusion.data.cache import Cached

Span = tuple[int, int]  # positions start .. stop - 1


class Permutations:
    """Positions -> image numbers: every image once in each stretch of ``n`` positions.

    n:     images in an epoch, at least 1.
    seed:  not negative.
    """

    def __init__(self, n: int, seed: int):
        self.n, self.seed = n, seed
        self._recent: OrderedDict[int, np.ndarray] = OrderedDict()

    def __call__(self, positions: Int64[np.ndarray, "B"]) -> Int64[np.ndarray, "B"]:
        epochs, offsets = positions // self.n, positions % self.n
        images = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            images[here] = self.permutation(int(epoch))[offsets[here]]
        return images

    def permutation(self, epoch: int) -> Int64[np.ndarray, "N"]:
        """Sorts raw 64-bit output of PCG64: numpy keeps that stable over its versions, unlike its own permutation()."""
        if epoch not in self._recent:
            keys = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(self.n)
            self._recent[epoch] = np.argsort(keys, kind="stable")
            while len(self._recent) > 2:  # a batch on the border of two epochs needs both
                self._recent.popitem(last=False)
        return self._recent[epoch]


def end_with_parent(worker: int) -> None:
    """For a loader's ``worker_init_fn``: on Linux the kernel ends a worker whose parent is killed.

    torch's own watch looks every 5 s, and a worker that is just handing a batch over may miss it for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def in_order(positions: Int64[np.ndarray, "B"]) -> Int64[np.ndarray, "B"]:
    """The order of evaluation: position p is image p."""
    return positions


class Batches(Dataset):
    """A map from spans of positions to whole batches: one gather from the memory map.

    order:  positions -> image numbers.
    """

    def __init__(self, cached: Cached, order: Callable[[Int64[np.ndarray, "B"]], Int64[np.ndarray, "B"]]):
        self.cached, self.order = cached, order

    def __getitem__(self, span: Span) -> dict[str, Tensor]:
        """image uint8 (B, C, R, R), label int64 (B,), index int64 (B,) = the positions."""
        positions = np.arange(*span)
        numbers = self.order(positions)
        return {
            "image": torch.from_numpy(np.take(self.cached.images, numbers, axis=0)),
            "label": torch.from_numpy(self.cached.labels[numbers]),
            "index": torch.from_numpy(positions),
        }


class EndlessSpans(Sampler[Span]):
    """Rank r of W takes the r-th of W equal slices of every ``batch`` positions, from ``start`` on, for ever."""

    def __init__(self, start: int, batch: int, rank: int = 0, world_size: int = 1):
        self.start, self.batch = start, batch
        self.offset, self.size = rank * (batch // world_size), batch // world_size

    def __iter__(self) -> Iterator[Span]:
        begin = self.start + self.offset
        while True:
            yield begin, begin + self.size
            begin += self.batch


class OnceSpans(Sampler[Span]):
    """Positions 0 .. n - 1 once, in order; each rank takes one contiguous part, cut into ``batch``es."""

    def __init__(self, n: int, batch: int, rank: int = 0, world_size: int = 1):
        begin, end = n * rank // world_size, n * (rank + 1) // world_size
        self.spans = [(start, min(start + batch, end)) for start in range(begin, end, batch)]

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

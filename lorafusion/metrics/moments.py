"""Mean and covariance of features, that do not depend on how the set was cut up: batches, order, processes."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

LSB = 2.0**-28  # features are rounded to multiples of this
LIMIT = 2.0**12  # and must not be larger than this
SPLIT = 2.0**20  # a feature is (high * SPLIT + low) * LSB with |high| <= 2^20 and |low| <= 2^19
CHUNK = 2**12  # rows in one product: sums of 2^12 products of at most 2^40 are exact in float64
MAX_IMAGES = 2**22  # more could overflow the int64 sums


class Moments:
    """Number, sum and sum of outer products of feature vectors, exact: every order of adding gives the same bits.

    Sums of floats depend on their order, hence on batch size and number of processes. Here features are rounded to a
    fixed grid (2^-28: float32 values of at least 2^-5 lie on it) and split into two integers of 20 bits, so every
    product and every partial sum of the float64 matrix products is a whole number below 2^53: nothing is ever rounded.

    dim:     D, the width of the features.
    device:  where the sums live; it needs float64.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu"):
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self.sum = torch.zeros(dim, dtype=torch.int64, device=device)  # (D,)
        self.outer = torch.zeros(3, dim, dim, dtype=torch.int64, device=device)  # high-high, high-low, low-low

    def add(self, features: Tensor) -> "Moments":  # (N, D)
        """Take in N feature vectors of size at most 4096. Raises ValueError for larger ones, NaN, and other widths."""
        if features.ndim != 2 or features.shape[1] != len(self.sum):
            raise ValueError(f"features must be (N, {len(self.sum)}); got {tuple(features.shape)}")
        for chunk in features.detach().split(CHUNK):
            self._add(chunk.to(self.sum.device, torch.float64))
        return self

    def _add(self, x: Float[Tensor, "N D"]) -> None:
        if not (x.abs() <= LIMIT).all():  # NaN fails this too
            raise ValueError(f"features must be finite and at most {LIMIT:g} in size; got {x.abs().max().item():g}")
        x = (x / LSB).round()
        high = (x / SPLIT).round()
        low = x - high * SPLIT
        self.count += len(x)
        self.sum += x.sum(0).long()
        self.outer += torch.stack((high.T @ high, high.T @ low, low.T @ low)).long()

    def merge(self, other: "Moments") -> "Moments":
        """Take in what ``other`` has seen."""
        for mine, theirs in zip(self._sums(), other._sums(), strict=True):
            mine += theirs.to(mine.device)
        return self

    def all_reduce(self) -> "Moments":
        """Take in what all processes of torch.distributed have seen; nothing to do without it."""
        if dist.is_available() and dist.is_initialized():
            for sums in self._sums():
                dist.all_reduce(sums)
        return self

    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.count, self.sum, self.outer

    def __len__(self) -> int:
        return int(self.count)

    @property
    def mean(self) -> Float[Tensor, "D"]:
        """Float64, on the CPU. Raises ValueError before two vectors were added."""
        self._check()
        return self.sum.cpu().double() / len(self) * LSB

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """Unbiased (divided by N - 1), float64, on the CPU. Raises ValueError before two vectors were added."""
        self._check()
        total = self.sum.cpu().double()
        return (self._second() - total.outer(total) / len(self)) / (len(self) - 1) * LSB**2

    def _check(self) -> None:
        if not 2 <= len(self) <= MAX_IMAGES:
            raise ValueError(f"moments need 2 to {MAX_IMAGES:,} feature vectors; they have {len(self):,}")
        size = (self._second().diagonal().mean() / len(self)).sqrt().item() * LSB
        if 0 < size < 2.0**-12:
            raise ValueError(f"features of size {size:g} are lost on a grid of 2^-28: scale them up")

    def _second(self) -> Float[Tensor, "D D"]:
        """Sum of outer products, in LSB^2."""
        high, cross, low = self.outer.cpu().double()
        return high * SPLIT**2 + (cross + cross.T) * SPLIT + low

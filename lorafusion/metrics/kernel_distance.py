"""Kernel distance between two sets of features: the maximum mean discrepancy under a cubic kernel.

    k(x, y) = (x . y / D + 1)^3,    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    unbiased

The mean over random subsets, as Binkowski et al. 2018 report it; on Inception's features it is the KID. Subsets are
drawn as torch-fidelity draws them, so the numbers are the same to its rounding.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor


def kernel_distance(
    samples: Float[Tensor, "N D"], reference: Float[Tensor, "M D"], *, subsets: int, subset_size: int, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation over the subsets; near 0 the mean may be negative.

    Raises ValueError for subsets larger than a set.
    """
    check_size(subset_size, len(samples), len(reference))
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        chosen = [draw.choice(len(rows), subset_size, replace=False) for rows in (samples, reference)]
        values.append(_mmd2(samples[chosen[0]].double(), reference[chosen[1]].double()).item())
    return float(np.mean(values)), float(np.std(values))


def check_size(subset_size: int, n: int, reference_n: int) -> None:
    """Raises ValueError where subsets are larger than one of the sets."""
    least = min(n, reference_n)
    if not 2 <= subset_size <= least:
        raise ValueError(f"metric.subset_size={subset_size}: 2 .. {least:,}, the images of the smaller set")


def _mmd2(x: Float[Tensor, "n D"], y: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
    n = len(x)
    within = sum(_kernel(rows, rows).fill_diagonal_(0).sum() for rows in (x, y))
    return within / (n * (n - 1)) - 2 * _kernel(x, y).mean()


def _kernel(x: Float[Tensor, "n D"], y: Float[Tensor, "n D"]) -> Float[Tensor, "n n"]:
    return (x @ y.T / x.shape[1] + 1) ** 3

"""Bits per dimension of a data set: the mean over its images of a bound's terms, and how sure the mean is."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measured:
    """Means over n images. total = prior + the sum of vb.

    error:            standard error of ``total`` over the images; None for one image.
    vb, mse, x0_mse:  (T,) float64, of each timestep: L_t, in bits per dimension; squared errors of eps and of x0.
    """

    n: int
    total: float
    error: float | None
    prior: float
    vb: np.ndarray
    mse: np.ndarray
    x0_mse: np.ndarray


class BitsPerDim:
    """Arrays in, numbers out; a metric that judges a model. Give it the terms of some images at a time."""

    name, judges = "bpd", "model"

    def __init__(self):
        self._totals: list[np.ndarray] = []
        self._prior = 0.0
        self._sums: list[np.ndarray] = []

    def add(self, prior: np.ndarray, vb: np.ndarray, mse: np.ndarray, x0_mse: np.ndarray) -> None:
        """prior (B,); the others (B, T). Raises ValueError where they do not fit, or not what was added before."""
        terms = [np.asarray(term, np.float64) for term in (vb, mse, x0_mse)]
        shape = (len(prior), terms[0].shape[-1] if not self._sums else len(self._sums[0]))
        if any(term.shape != shape for term in terms):
            raise ValueError(f"bpd: terms of shapes {[term.shape for term in terms]}; each should be {shape}")
        sums = [term.sum(0) for term in terms]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._prior += float(np.asarray(prior, np.float64).sum())
        self._totals.append(prior + terms[0].sum(1))

    def measured(self) -> Measured:
        """Raises ValueError where no image was added."""
        if not self._totals:
            raise ValueError("bpd: no image was added")
        totals = np.concatenate(self._totals)
        n = len(totals)
        error = float(totals.std(ddof=1)) / math.sqrt(n) if n > 1 else None
        return Measured(n, float(totals.mean()), error, self._prior / n, *(s / n for s in self._sums))

"""DDIM: x_s = x0 + sqrt(sigma_s^2 - var) eps + sqrt(var) z, var = eta^2 times the posterior's.

Song et al. 2021, eq. 12, in the coordinates x = x0 + sigma n. With eta = 0 it is Euler's method on the
probability-flow ODE, with eta = 1 it is ancestral sampling with the small variance.
"""

from itertools import pairwise

import torch
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Process
from lorafusion.samplers import Denoise, Progress, posterior_variance, state_dtype


class DDIM:
    """steps: how many levels; None = every step of a discrete process. eta: 0 .. 1. clip: every x0 to [-1, 1]."""

    def __init__(self, steps: int | None = 50, eta: float = 0.0, clip: bool = True):
        if not 0 <= eta <= 1:
            raise ValueError(f"ddim: eta must be 0 .. 1; got {eta}")
        self.steps, self.eta, self.clip = steps, eta, clip

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoise,
        process: Process,
        draws: Draws,
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Tensor:
        dtype = state_dtype(device)
        levels = process.levels(self.steps).to(device, dtype)  # (steps + 1,)
        x = process.prior_std(levels[0]) * draws.normal(*shape, dtype=dtype)
        for i, (t, s) in enumerate(pairwise(levels)):
            x0 = denoise(x, t[None]).x0
            x0 = x0.clamp(-1, 1) if self.clip else x0
            eps = (x - x0) / t
            variance = self.eta**2 * posterior_variance(t, s)
            x = x0 + (s**2 - variance).sqrt() * eps
            if self.eta > 0 and s > 0:
                x = x + variance.sqrt() * draws.normal(*shape, dtype=dtype)
            if progress:
                progress(i + 1, len(levels) - 1)
        return x

"""Heun's method on the probability-flow ODE, with optional churn. Karras et al. 2022, algorithms 1 and 2."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Process
from lorafusion.processes.edm import rho_levels
from lorafusion.samplers import Denoise, Progress, state_dtype


class Heun:
    """2 * steps - 1 evaluations of D.

    steps, sigma_min, sigma_max, rho:  the grid (eq. 5), rounded to the levels that the process knows.
    churn, churn_min, churn_max, churn_noise:  S_churn, S_tmin, S_tmax, S_noise; churn = 0 is algorithm 1.
    """

    def __init__(
        self,
        steps: int = 18,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        churn_noise: float = 1.0,
    ):
        self.steps, self.sigma_min, self.sigma_max, self.rho = steps, sigma_min, sigma_max, rho
        self.levels = rho_levels(steps, sigma_min, sigma_max, rho)
        self.churn, self.churn_min, self.churn_max, self.churn_noise = churn, churn_min, churn_max, churn_noise

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
        levels = torch.cat((process.round(self.levels[:-1]), self.levels[-1:])).to(device, dtype)
        steps = len(levels) - 1

        def slope(x: Tensor, sigma: Tensor) -> Tensor:  # dx/dsigma = (x - D(x; sigma)) / sigma
            return (x - denoise(x, sigma[None]).x0) / sigma

        x = process.prior_std(levels[0]) * draws.normal(*shape, dtype=dtype)
        for i, (t, s) in enumerate(pairwise(levels)):
            gamma = min(self.churn / steps, math.sqrt(2) - 1) if self.churn_min <= t <= self.churn_max else 0.0
            if gamma > 0:
                raised = process.round((t + gamma * t)[None])[0]
                noise = draws.normal(*shape, dtype=dtype)
                x, t = x + (raised**2 - t**2).clamp(min=0).sqrt() * self.churn_noise * noise, raised
            d = slope(x, t)
            euler = x + (s - t) * d
            x = euler if s == 0 else x + (s - t) * (d + slope(euler, s)) / 2
            if progress:
                progress(i + 1, steps)
        return x

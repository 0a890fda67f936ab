"""Ancestral sampling: draw x_s ~ p(x_s | x_t) down the levels. Ho et al. 2020, algorithm 2; respaced: Nichol & Dhariwal
2021, section 4."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Process
from lorafusion.samplers import Denoise, Progress, posterior_variance, state_dtype


class Ancestral:
    """steps:     how many levels; None = every step of a discrete process.
    variance:  'small' = the posterior's, 'large' = the forward step's, 'learned' = between them, by the network.
    clip:      clip every predicted x0 to [-1, 1].
    """

    def __init__(
        self,
        steps: int | None = None,
        variance: Literal["small", "large", "learned"] = "small",
        clip: bool = True,
    ):
        self.steps, self.variance, self.clip = steps, variance, clip

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
            prediction = denoise(x, t[None])
            x0 = prediction.x0.clamp(-1, 1) if self.clip else prediction.x0
            w = s**2 / t**2
            x = w * x + (1 - w) * x0
            if s > 0:
                std = self._variance(process, t, s, prediction.v).sqrt()
                x = x + std * draws.normal(*shape, dtype=dtype)
            if progress:
                progress(i + 1, len(levels) - 1)
        return x

    def _variance(self, process: Process, t: Tensor, s: Tensor, v: Tensor | None) -> Tensor:
        if self.variance == "small":
            return posterior_variance(t, s)
        if self.variance == "large":
            return process.transition_variance(t, s)
        if v is None:
            raise ValueError("ancestral: variance=learned asks for a network that predicts it; use small or large")
        return (v * process.transition_variance(t, s).log() + (1 - v) * posterior_variance(t, s).log()).exp()

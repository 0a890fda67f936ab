"""Samplers: one algorithm a file, each a function of D(x; sigma), for discrete and continuous processes alike.

State is kept in float64, or in float32 on devices that lack it.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Prediction, Process

Denoise = Callable[[Tensor, Tensor], Prediction]  # D(x (B, C, H, W), sigma (B,)), x = x0 + sigma n
Progress = Callable[[int, int], None]  # called with (steps done, steps in all)


class Sampler(Protocol):
    def __call__(
        self,
        denoise: Denoise,
        process: Process,
        draws: Draws,
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Draw B images of ``shape`` (C, H, W), where B is the number of images in ``draws``."""
        ...


def state_dtype(device: torch.device | str) -> torch.dtype:
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def posterior_variance(sigma_t: Tensor, sigma_s: Tensor) -> Tensor:
    """Variance of q(x_s | x_t, x0) = N(w x_t + (1 - w) x0, (1 - w) sigma_s^2), w = sigma_s^2 / sigma_t^2.

    Ho et al. 2020, eq. 7, in the coordinates x = x0 + sigma n, where it is the same for every process.
    """
    return sigma_s**2 * (1 - sigma_s**2 / sigma_t**2)

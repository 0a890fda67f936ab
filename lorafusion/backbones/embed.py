"""Embeddings of the noise level."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """[cos, sin](scale * noise * f_i), f_i = max_period^(-i / (E/2)), i = 0 .. E/2 - 1. Vaswani et al. 2017.

    width:       E, even.
    max_period:  the slowest wave's period is 2 pi max_period.
    scale:       multiplies the noise level first; for c_noise of EDM, whose range is about 3, where steps span 1000.
    endpoint:    divide i by E/2 - 1 instead, so that the slowest wave has exactly max_period (EDM).
    """

    freqs: Tensor

    def __init__(self, width: int, max_period: float = 10_000, scale: float = 1.0, endpoint: bool = False):
        super().__init__()
        if width % 2:
            raise ValueError(f"a sinusoidal embedding has an even width; got {width}")
        i = torch.arange(width // 2, dtype=torch.float64)
        freqs = scale * torch.exp(-math.log(max_period) * i / max(width // 2 - endpoint, 1))
        self.register_buffer("freqs", freqs.to(torch.get_default_dtype()), persistent=False)

    def forward(self, noise: Float[Tensor, "B"]) -> Float[Tensor, "B E"]:
        angle = noise.to(self.freqs.dtype)[:, None] * self.freqs  # (B, E/2)
        return torch.cat((angle.cos(), angle.sin()), dim=1)


class Fourier(nn.Module):
    """[cos, sin](2 pi f_i noise), f_i ~ N(0, scale^2), i = 1 .. E/2: drawn once, kept with the weights, not trained.

    Song et al. 2021 (NCSN++), appendix C.

    width:  E, even.
    """

    freqs: Tensor

    def __init__(self, width: int, scale: float = 16.0):
        super().__init__()
        if width % 2:
            raise ValueError(f"a Fourier embedding has an even width; got {width}")
        self.register_buffer("freqs", scale * torch.randn(width // 2))

    def forward(self, noise: Float[Tensor, "B"]) -> Float[Tensor, "B E"]:
        angle = noise.to(self.freqs.dtype)[:, None] * (2 * math.pi * self.freqs)  # (B, E/2)
        return torch.cat((angle.cos(), angle.sin()), dim=1)

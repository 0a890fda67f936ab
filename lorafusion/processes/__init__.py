"""Diffusion processes: how data becomes noise, what a network learns from it, and how it predicts the data back.

A process never holds a network: it takes one as an argument. Both families are spoken to in one pair of coordinates,

    x = x0 + sigma n,        n ~ N(0, I),        sigma: noise level,

in which a variance-preserving process is x = x_t / sqrt(alpha_bar), sigma = sqrt((1 - alpha_bar) / alpha_bar). So a
sampler needs only D(x; sigma) and works on either (Karras et al. 2022, section 2 and table 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from lorafusion.draws import Draws

Net = Callable[..., Tensor]  # net(x, noise, step, label, augment) -> raw output F_theta


@dataclass(frozen=True)
class Prediction:
    """x0: the predicted clean image. v: log-variance between its bounds, 0 .. 1, where the network learns it."""

    x0: Float[Tensor, "B C H W"]
    v: Float[Tensor, "B C H W"] | None = None


class Process(Protocol):
    """num_steps: T of a discrete process; None = continuous."""

    num_steps: int | None

    def loss(
        self,
        net: Net,
        x0: Float[Tensor, "B C H W"],
        draws: Draws,
        label: Float[Tensor, "B K"] | None = None,
        augment: Float[Tensor, "B A"] | None = None,
    ) -> Float[Tensor, "B"]:
        """Training loss of each image, with its noise level and noise from ``draws``."""
        ...

    def denoise(
        self,
        net: Net,
        x: Float[Tensor, "B C H W"],
        sigma: Float[Tensor, "#B"],
        label: Float[Tensor, "B K"] | None = None,
    ) -> Prediction:
        """D(x; sigma), with x = x0 + sigma n; sigma has one element where all images share it."""
        ...

    def levels(self, steps: int | None) -> Float[Tensor, "levels"]:
        """The process's own grid of noise levels, decreasing, the last one 0. None = every step of a discrete one."""
        ...

    def round(self, sigma: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """The nearest noise levels that the process knows."""
        ...

    def prior_std(self, sigma: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Standard deviation of x where sampling starts, at noise level ``sigma``."""
        ...

    def transition_variance(self, sigma_t: Float[Tensor, ""], sigma_s: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Variance that the forward step from level s up to t adds: the "large" variance of ancestral sampling."""
        ...


def per_image(v: Float[Tensor, "B"], x: Tensor) -> Tensor:
    """View v (B,) so that it broadcasts over x (B, C, H, W)."""
    return v.view(-1, *[1] * (x.ndim - 1))

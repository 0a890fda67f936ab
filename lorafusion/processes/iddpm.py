"""IDDPM: DDPM whose network also learns the variance of the reverse step. Nichol & Dhariwal 2021, sections 3.1 - 3.3.

The network answers eps and, in as many channels again, v. The log-variance of p(x_{t-1} | x_t) lies between that of the
posterior and that of the forward step, log var = v log beta_t + (1 - v) log beta~_t, v scaled from -1 .. 1 to 0 .. 1.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Net, Prediction, per_image
from lorafusion.processes.ddpm import DDPM


@dataclass(frozen=True)
class Reverse:
    """p(x_{t-1} | x_t) = N(mean, exp(log_variance)), and the clean image that its mean comes from."""

    mean: Float[Tensor, "B C H W"]
    log_variance: Float[Tensor, "B C H W"]
    x0: Float[Tensor, "B C H W"]


class IDDPM(DDPM):
    """num_steps, schedule, spacing: as DDPM's.

    objective:  'simple' = L_simple, the mean squared error of eps, which leaves v untrained; 'hybrid' = L_simple plus
                T / 1000 times the variational term, whose mean is detached so that it trains v alone (eq. 16);
                'vlb' = T times the variational term, an estimate of L_vlb in bits per dimension.

    Timesteps reach the network rescaled to 0 .. 1000, whatever T.
    """

    def __init__(
        self,
        num_steps: int = 4000,
        schedule: Literal["linear", "cosine"] = "cosine",
        spacing: Literal["even", "stride"] = "even",
        objective: Literal["simple", "hybrid", "vlb"] = "hybrid",
    ):
        super().__init__(num_steps, schedule, spacing)
        if objective not in ("simple", "hybrid", "vlb"):
            raise ValueError(f"iddpm: objective must be 'simple', 'hybrid' or 'vlb'; got {objective!r}")
        self.objective = objective
        self.posterior_log_variance_clipped = posterior_log_variance_clipped(self.betas)  # (T,)

    @classmethod
    def of(cls, betas: Float[Tensor, "T"]) -> "IDDPM":
        """The process of other betas than a schedule's, float64: of a respaced one, say."""
        made = cls(len(betas))
        made._set(betas)
        made.posterior_log_variance_clipped = posterior_log_variance_clipped(betas)
        return made

    def loss(
        self, net: Net, x0: Tensor, draws: Draws, label: Tensor | None = None, augment: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        step = draws.integers(self.num_steps)  # (B,)
        return self.loss_at(net, x0, step, draws.normal(*x0.shape[1:], dtype=x0.dtype), label, augment)

    def loss_at(
        self,
        net: Net,
        x0: Float[Tensor, "B C H W"],
        step: Int[Tensor, "B"],
        noise: Float[Tensor, "B C H W"],
        label: Float[Tensor, "B K"] | None = None,
        augment: Float[Tensor, "B A"] | None = None,
    ) -> Float[Tensor, "B"]:
        """The objective of each image at its timestep."""
        x_t = self.q_sample(x0, step, noise)
        eps, v = self.split(net(x_t, self.noise(step, x0.dtype), step, label, augment), x_t)
        simple = (eps - noise).square().flatten(1).mean(1)
        if self.objective == "simple":
            return simple
        if self.objective == "vlb":
            return self.num_steps * self.variational_term(x0, x_t, step, self.reverse(x_t, step, eps, v))
        p = self.reverse(x_t, step, eps.detach(), v)
        return simple + self.num_steps / 1000 * self.variational_term(x0, x_t, step, p)

    def denoise(self, net: Net, x: Tensor, sigma: Float[Tensor, "B"], label: Tensor | None = None) -> Prediction:
        step = self.nearest_step(sigma)  # (B,)
        x_t = x / per_image((1 + sigma**2).sqrt(), x)
        eps, v = self.split(net(x_t, self.noise(step, x.dtype), step, label, None), x_t)
        return Prediction(x - per_image(sigma, x) * eps, v)

    def noise(self, step: Int[Tensor, "N"], dtype: torch.dtype) -> Float[Tensor, "N"]:
        return step.to(dtype) * (1000 / self.num_steps)

    def reverse(
        self,
        x_t: Float[Tensor, "B C H W"],
        step: Int[Tensor, "#B"],
        eps: Float[Tensor, "B C H W"],
        v: Float[Tensor, "B C H W"] | None,
        *,
        clip: bool = False,
    ) -> Reverse:
        """p(x_{t-1} | x_t) of what the network answers. clip: the predicted clean image to [-1, 1]."""
        if v is None:
            raise ValueError(
                f"iddpm: objective={self.objective} learns the variance, so the network must answer twice the image's "
                "channels: backbone.learned_variance=true, or process.objective=simple"
            )
        bar = self.alpha_bar
        of_x, of_eps = (per_image(self._at(t, step, x_t), x_t) for t in ((1 / bar).sqrt(), (1 / bar - 1).sqrt()))
        x0 = of_x * x_t - of_eps * eps
        x0 = x0.clamp(-1, 1) if clip else x0
        large, small = (
            per_image(self._at(t, step, x_t), x_t) for t in (self.betas.log(), self.posterior_log_variance_clipped)
        )
        return Reverse(self.posterior(x0, x_t, step)[0], v * large + (1 - v) * small, x0)

    def implied_eps(
        self, x_t: Float[Tensor, "B C H W"], step: Int[Tensor, "#B"], x0: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B C H W"]:
        """The noise that made x_t of x0."""
        bar = self.alpha_bar
        of_x, of_x0 = (per_image(self._at(t, step, x_t), x_t) for t in (1 / (1 - bar).sqrt(), (bar / (1 - bar)).sqrt()))
        return of_x * x_t - of_x0 * x0

    def variational_term(
        self, x0: Float[Tensor, "B C H W"], x_t: Float[Tensor, "B C H W"], step: Int[Tensor, "#B"], p: Reverse
    ) -> Float[Tensor, "B"]:
        """L_t of each image at its timestep, in bits per dimension.

        KL(q(x_{t-1} | x_t, x0) | p(x_{t-1} | x_t)); at t = 0 -log2 p(x0 | x_1).
        """
        log_variance = per_image(self._at(self.posterior_log_variance_clipped, step, x0), x0)
        divergence = kl(self.posterior(x0, x_t, step)[0], log_variance, p.mean, p.log_variance)
        likelihood = discretised_log_likelihood(x0, p.mean, p.log_variance / 2)
        return torch.where(step == 0, bits_per_dim(-likelihood), bits_per_dim(divergence))

    def split(self, raw: Float[Tensor, "B O H W"], x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """eps, and v in 0 .. 1 where the network answers it, in the dtype of ``x_t``."""
        channels = x_t.shape[1]
        if raw.shape[1] not in (channels, 2 * channels):
            raise ValueError(
                f"iddpm: the network must answer {channels} or {2 * channels} channels; got {raw.shape[1]}"
            )
        eps, v = raw[:, :channels].to(x_t.dtype), raw[:, channels:].to(x_t.dtype)
        return eps, (v + 1) / 2 if v.shape[1] else None


def posterior_log_variance_clipped(betas: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
    """log of the variance of q(x_{t-1} | x_t, x0); at t = 0, where that is 0, of the step after."""
    bar = (1 - betas).cumprod(0)
    bar_s = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
    variance = betas * (1 - bar_s) / (1 - bar)  # (T,), 0 at t = 0
    if len(betas) > 1:
        variance[0] = variance[1]
    return variance.clamp(min=1e-20).log()


def kl(mean: Tensor, log_variance: Tensor, p_mean: Tensor, p_log_variance: Tensor) -> Tensor:
    """KL(N(mean, .) | N(p_mean, .)) of each pixel, in nats."""
    ratio = log_variance - p_log_variance
    return (ratio.exp() - 1 - ratio + (mean - p_mean) ** 2 * (-p_log_variance).exp()) / 2


def discretised_log_likelihood(
    x0: Float[Tensor, "B C H W"], mean: Float[Tensor, "B C H W"], log_std: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """log of a Gaussian's mass in each pixel's bin of width 2 / 255, the outermost bins open. Ho et al. 2020, eq. 13.

    x0:  8-bit images in [-1, 1]. The mass is at least 1e-12. The cumulative distribution is the tanh approximation that
    the published bits per dimension were computed with (it is within 2e-4 of the exact one).
    """
    centred, scale = x0 - mean, (-log_std).exp()
    above, below = _cumulative(scale * (centred + 1 / 255)), _cumulative(scale * (centred - 1 / 255))
    mass = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def _cumulative(z: Tensor) -> Tensor:
    return (1 + (math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)).tanh()) / 2


def bits_per_dim(nats: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """Nats of each pixel -> bits of each image, per dimension."""
    return nats.flatten(1).mean(1) / math.log(2)

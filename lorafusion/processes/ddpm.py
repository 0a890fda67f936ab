"""DDPM: a discrete, variance-preserving process, x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

Ho et al. 2020 (DDPM), Nichol & Dhariwal 2021 (IDDPM: cosine schedule, respacing). Steps are counted 0 .. T-1.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Net, Prediction, per_image


class DDPM:
    """The network predicts eps; loss is its mean squared error (L_simple, Ho et al. 2020, eq. 14).

    num_steps:  T, at least 1.
    schedule:   'linear' = betas 1e-4 .. 0.02 for T = 1000, scaled by 1000 / T; 'cosine' = Nichol & Dhariwal eq. 17.
    spacing:    of ``levels(n)``: 'even' = n steps from 0 to T-1, rounded; 'stride' = 0, k, 2k, ... (DDIM).
    """

    def __init__(
        self,
        num_steps: int = 1000,
        schedule: Literal["linear", "cosine"] = "linear",
        spacing: Literal["even", "stride"] = "even",
    ):
        if num_steps < 1:
            raise ValueError(f"ddpm: num_steps must be at least 1; got {num_steps}")
        make = {"linear": linear_betas, "cosine": cosine_betas}
        if schedule not in make:
            raise ValueError(f"ddpm: schedule must be 'linear' or 'cosine'; got {schedule!r}")
        self.num_steps = num_steps
        self.spacing: Literal["even", "stride"] = spacing
        self._set(make[schedule](num_steps))

    def _set(self, betas: Float[Tensor, "T"]) -> None:
        self.betas = betas  # (T,) float64
        self.alpha_bar = (1 - betas).cumprod(0)  # (T,)
        self.sigmas = ((1 - self.alpha_bar) / self.alpha_bar).sqrt()  # (T,) increasing

    def q_sample(
        self, x0: Float[Tensor, "B C H W"], step: Int[Tensor, "#B"], eps: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B C H W"]:
        """x_t ~ q(x_t | x0). Ho et al. 2020, eq. 4."""
        of_x0, of_eps = (self._at(table, step, x0) for table in (self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()))
        return per_image(of_x0, x0) * x0 + per_image(of_eps, x0) * eps

    def posterior(
        self, x0: Float[Tensor, "B C H W"], x_t: Float[Tensor, "B C H W"], step: Int[Tensor, "#B"]
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "#B"]]:
        """Mean and variance of q(x_{t-1} | x_t, x0). Ho et al. 2020, eq. 7. At step 0 the variance is 0."""
        beta, bar = self.betas, self.alpha_bar  # (T,)
        bar_s = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))  # of the step before
        of_x0, of_x_t = bar_s.sqrt() * beta / (1 - bar), (1 - beta).sqrt() * (1 - bar_s) / (1 - bar)
        variance = beta * (1 - bar_s) / (1 - bar)
        of_x0, of_x_t, variance = (self._at(table, step, x0) for table in (of_x0, of_x_t, variance))  # each (B,)
        return per_image(of_x0, x0) * x0 + per_image(of_x_t, x0) * x_t, variance

    def loss(
        self, net: Net, x0: Tensor, draws: Draws, label: Tensor | None = None, augment: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        step = draws.integers(self.num_steps)  # (B,)
        eps = draws.normal(*x0.shape[1:], dtype=x0.dtype)
        out = net(self.q_sample(x0, step, eps), self.noise(step, x0.dtype), step, label, augment)
        return (out - eps).square().flatten(1).mean(1)

    def denoise(self, net: Net, x: Tensor, sigma: Float[Tensor, "B"], label: Tensor | None = None) -> Prediction:
        step = self.nearest_step(sigma)  # (B,)
        x_t = x / per_image((1 + sigma**2).sqrt(), x)
        eps = net(x_t, self.noise(step, x.dtype), step, label, None)
        return Prediction(x - per_image(sigma, x) * eps)

    def noise(self, step: Int[Tensor, "N"], dtype: torch.dtype) -> Float[Tensor, "N"]:
        """What the network sees of a step."""
        return step.to(dtype)

    def levels(self, steps: int | None) -> Float[Tensor, "levels"]:
        chosen = respaced(self.num_steps, self.num_steps if steps is None else steps, self.spacing)
        return torch.cat((self.sigmas[chosen].flip(0), torch.zeros(1, dtype=torch.float64)))

    def round(self, sigma: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        return self._at(self.sigmas, self.nearest_step(sigma), sigma)

    def nearest_step(self, sigma: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
        table, sigma = self.sigmas.to(sigma.device, sigma.dtype), sigma.contiguous()
        above = torch.bucketize(sigma, table).clamp(1, max(self.num_steps - 1, 1))  # table[above - 1] < sigma
        if self.num_steps == 1:
            return torch.zeros_like(above)
        return torch.where(sigma - table[above - 1] <= table[above] - sigma, above - 1, above)

    def prior_std(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).sqrt()

    def transition_variance(self, sigma_t: Tensor, sigma_s: Tensor) -> Tensor:
        """beta_t of the (respaced) step, 1 - alpha_bar_t / alpha_bar_s, in the coordinates of level s."""
        return (1 + sigma_s**2) * (sigma_t**2 - sigma_s**2) / (1 + sigma_t**2)

    def _at(self, table: Float[Tensor, "T"], step: Int[Tensor, "N"], like: Tensor) -> Float[Tensor, "N"]:
        """Entries of a table, worked out in float64: 1 - alpha_bar has no digits left in float32 near t = 0."""
        return table.to(like.device, like.dtype)[step]


def linear_betas(num_steps: int) -> Float[Tensor, "T"]:
    """1e-4 .. 0.02 at T = 1000 (Ho et al. 2020), scaled by 1000 / T to end at the same noise level, at most 0.999."""
    scale = 1000 / num_steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64).clamp(max=0.999)


def cosine_betas(num_steps: int) -> Float[Tensor, "T"]:
    """alpha_bar(t) = cos^2((t / T + s) / (1 + s) pi / 2), s = 0.008, betas at most 0.999. Nichol & Dhariwal eq. 17."""
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    alpha_bar = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def respaced(num_steps: int, n: int, spacing: Literal["even", "stride"]) -> Int[Tensor, "n"]:
    """n of the steps 0 .. T-1, increasing. Raises ValueError if n is not 1 .. T, or has no integer stride."""
    if not 1 <= n <= num_steps:
        raise ValueError(f"ddpm: sampler.steps must be 1 .. {num_steps}, the steps of the process; got {n}")
    if spacing == "even":
        stride = (num_steps - 1) / max(n - 1, 1)
        return torch.tensor([round(i * stride) for i in range(n)])
    for stride in range(1, num_steps + 1):
        if len(range(0, num_steps, stride)) == n:
            return torch.arange(0, num_steps, stride)
    raise ValueError(f"ddpm: no integer stride takes {n} of {num_steps} steps; use process.spacing=even")

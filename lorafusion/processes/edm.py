"""EDM: a continuous process, x = x0 + sigma n, a preconditioned network. Karras et al. 2022, section 5, table 1."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Net, Prediction, per_image


class Preconditioning(NamedTuple):
    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class EDM:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise); ln sigma ~ N(P_mean, P_std^2) in training.

    sigma_data:  standard deviation of the data, > 0.
    num_steps:   None: the process is continuous.
    """

    def __init__(self, sigma_data: float = 0.5, P_mean: float = -1.2, P_std: float = 1.2, num_steps: None = None):
        if sigma_data <= 0 or P_std <= 0:
            raise ValueError(f"edm: sigma_data and P_std must be above 0; got {sigma_data} and {P_std}")
        self.sigma_data, self.P_mean, self.P_std, self.num_steps = sigma_data, P_mean, P_std, num_steps

    def precondition(self, sigma: Float[Tensor, "B"]) -> Preconditioning:
        """Each (B,). Karras et al. 2022, table 1, last column."""
        total = sigma**2 + self.sigma_data**2
        return Preconditioning(
            c_skip=self.sigma_data**2 / total,
            c_out=sigma * self.sigma_data / total.sqrt(),
            c_in=1 / total.sqrt(),
            c_noise=sigma.log() / 4,
        )

    def denoise(
        self,
        net: Net,
        x: Tensor,
        sigma: Float[Tensor, "B"],
        label: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Prediction:
        c_skip, c_out, c_in, c_noise = self.precondition(sigma)
        raw = net(per_image(c_in, x) * x, c_noise, None, label, augment)
        return Prediction(per_image(c_skip, x) * x + per_image(c_out, x) * raw)

    def loss(
        self, net: Net, x0: Tensor, draws: Draws, label: Tensor | None = None, augment: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """lambda(sigma) |D(x0 + sigma n; sigma) - x0|^2, mean over pixels. Karras et al. 2022, eq. 8."""
        sigma = (self.P_mean + self.P_std * draws.normal(1, dtype=x0.dtype)[:, 0]).exp()  # (B,)
        n = draws.normal(*x0.shape[1:], dtype=x0.dtype)
        error = self.denoise(net, x0 + per_image(sigma, x0) * n, sigma, label, augment).x0 - x0
        return self.weight(sigma) * error.square().flatten(1).mean(1)

    def weight(self, sigma: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """lambda(sigma) = 1 / c_out^2: every noise level starts with the same loss."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def levels(self, steps: int | None) -> Float[Tensor, "levels"]:
        if steps is None:
            raise ValueError("edm: the process is continuous, so say how many steps: sampler.steps=18")
        return rho_levels(steps)

    def round(self, sigma: Tensor) -> Tensor:
        return sigma

    def prior_std(self, sigma: Tensor) -> Tensor:
        return sigma

    def transition_variance(self, sigma_t: Tensor, sigma_s: Tensor) -> Tensor:
        return sigma_t**2 - sigma_s**2


def rho_levels(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[Tensor, "levels"]:
    """sigma_max .. sigma_min, evenly spaced in sigma^(1/rho), then 0. Karras et al. 2022, eq. 5."""
    if steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"sampler: need steps >= 1 and 0 < sigma_min < sigma_max; got {steps}, {sigma_min}, {sigma_max}"
        )
    i = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    sigma = (sigma_max ** (1 / rho) + i * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat((sigma, torch.zeros(1, dtype=torch.float64)))

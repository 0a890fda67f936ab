"""The noise levels of an analysis: timesteps of a discrete process, logarithms of sigma of a continuous one."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.analysis.axis import Axis, round_up
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.processes import Prediction, Process
from lorafusion.samplers import Sampler


@dataclass(frozen=True)
class Levels:
    """sigma:  (N,) float64, increasing.
    axis:   its places are timesteps, or ln sigma.
    """

    sigma: Float[Tensor, "N"]
    axis: Axis
    discrete: bool

    @property
    def distance(self) -> str:
        """What the distance of two places is."""
        return "|t1 - t2|" if self.discrete else "|ln sigma1 - ln sigma2|"

    def called(self, k: int) -> str:
        return f"t = {self.axis.place[k]:.0f}" if self.discrete else f"sigma = {float(self.sigma[k]):.3g}"


def levels_of(process: Process, sampler: Sampler, points: int) -> Levels:
    """``points`` of them: timesteps spread over all of a discrete process, or sigmas, evenly spaced in their
    logarithm, over those that the sampler asks a continuous one for. Raises UserError for fewer than 2 points.
    """
    if points < 2:
        raise UserError(f"analysis.points={points}: at least 2 noise levels")
    if process.num_steps is not None:
        step = torch.linspace(0, process.num_steps - 1, points, dtype=torch.float64).round().long().unique()
        every = process.levels(None)[:-1].flip(0)  # (T,) increasing
        place = step.double().numpy()
        return Levels(every[step], Axis("levels", "timestep t", place, _timesteps(process.num_steps)), discrete=True)
    asked = asked_for(process, sampler)
    place = np.linspace(asked.min().log().item(), asked.max().log().item(), points)
    return Levels(
        torch.from_numpy(place).exp(), Axis("levels", r"noise level $\sigma$", place, _decades(place)), discrete=False
    )


def asked_for(process: Process, sampler: Sampler) -> Float[Tensor, "steps"]:
    """The noise levels at which a sampler evaluates the network, in their order, found on one pixel."""
    asked: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Prediction:
        asked.append(sigma)
        return Prediction(torch.zeros_like(x), torch.zeros_like(x))

    sampler(denoise, process, Draws(0, torch.zeros(1, dtype=torch.long)), (1, 1, 1))
    return torch.cat(asked)


def _timesteps(num_steps: int) -> tuple[list[float], list[str]]:
    """0 and two or so more, at round timesteps."""
    at = np.arange(0, num_steps, round_up(max((num_steps - 1) / 2.5, 1))).tolist()
    return at, [f"{t:g}" for t in at]


def _decades(place: Float[np.ndarray, "N"]) -> tuple[list[float], list[str]]:
    """Powers of ten of sigma, at most four."""
    first, last = place[[0, -1]] / np.log(10)
    exponents = np.arange(np.ceil(first - 1e-9), np.floor(last + 1e-9) + 1)
    kept = exponents[:: -(-len(exponents) // 4) or 1]
    return (kept * np.log(10)).tolist(), [f"{10.0**k:g}" for k in kept]

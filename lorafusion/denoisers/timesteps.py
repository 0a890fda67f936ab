"""How training chooses the timestep of each image: importance sampling by the loss.

Nichol & Dhariwal 2021, section 3.3.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorafusion.draws import Draws


class LossSecondMoment(nn.Module):
    """p_t ~ sqrt(E[L_t^2]), from the last losses at each timestep; uniform until every timestep has so many.

    history:  how many losses of a timestep count.
    floor:    share of the probability that is spread evenly, 0 .. 1.

    Its state lies in buffers, so a checkpoint has it. It is the same on all ranks, and does not depend on how a batch
    is cut into micro-batches: losses are taken up once a step, in the order of the images in the stream.
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, num_steps: int, history: int = 10, floor: float = 1e-3):
        super().__init__()
        self.floor = floor
        self.register_buffer("losses", torch.zeros(num_steps, history))  # a ring for each timestep
        self.register_buffer("counts", torch.zeros(num_steps, dtype=torch.long))

    def probabilities(self) -> Float[Tensor, "T"]:
        moment = self.losses.square().mean(1).sqrt()
        share = moment / moment.sum() * (1 - self.floor) + self.floor / len(moment)
        return torch.where((self.counts >= self.losses.shape[1]).all(), share, torch.full_like(share, 1 / len(share)))

    def draw(self, draws: Draws) -> tuple[Int[Tensor, "B"], Float[Tensor, "B"]]:
        """Timesteps, and the weights 1 / (T p_t) that make a weighted loss's mean that of uniform timesteps."""
        p = self.probabilities()
        below = p.cumsum(0)
        u = draws.integers(1 << 31).to(p.dtype) / (1 << 31) * below[-1]
        step = torch.searchsorted(below, u, right=True).clamp(max=len(p) - 1)
        return step, 1 / (len(p) * p[step])

    @torch.no_grad()
    def update(self, index: Int[Tensor, "B"], step: Int[Tensor, "B"], loss: Float[Tensor, "B"]) -> None:
        """Take up the losses of one batch, but those not finite. index: the images' positions in the stream."""
        order = index[loss.isfinite()].argsort()
        step, loss = step[loss.isfinite()][order], loss[loss.isfinite()][order]
        order = step.argsort(stable=True)
        step, loss = step[order], loss[order].to(self.losses.dtype)
        first = torch.searchsorted(step, step)
        nth = torch.arange(len(step), device=step.device) - first  # of the losses of its timestep
        history, many = self.losses.shape[1], torch.searchsorted(step, step, right=True) - first
        kept = nth >= many - history  # those that the others would overwrite at once are left out
        self.losses[step[kept], (self.counts[step[kept]] + nth[kept]) % history] = loss[kept]
        self.counts += torch.bincount(step, minlength=len(self.counts))

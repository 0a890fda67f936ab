"""The variational bound on -log2 p(x0) of a discrete process, term by term. Ho et al. 2020, eq. 5; Nichol & Dhariwal
2021, section 3.

    bits = prior + sum_t L_t,    L_0 = -log2 p(x0 | x_1),    L_t = KL(q(x_{t-1} | x_t, x0) | p(x_{t-1} | x_t))

Every term is estimated with one draw of noise, and with the predicted image clipped to [-1, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.processes import Net
from lorafusion.processes.ddpm import DDPM, respaced
from lorafusion.processes.iddpm import IDDPM, bits_per_dim, kl


@dataclass(frozen=True)
class Terms:
    """Of each image at its timestep, or at all of them.

    vb:      L_t in bits per dimension.
    mse:     mean squared error of eps, as the clipped image implies it.
    x0_mse:  mean squared error of the clipped image.
    """

    vb: Float[Tensor, "B *T"]
    mse: Float[Tensor, "B *T"]
    x0_mse: Float[Tensor, "B *T"]


@dataclass(frozen=True)
class BitsPerDim:
    """at_step:  terms of all timesteps, (B, T) each.
    prior:    KL between q(x_T | x0) and N(0, I).
    """

    at_step: Terms
    prior: Float[Tensor, "B"]

    @property
    def total(self) -> Float[Tensor, "B"]:
        return self.prior + self.at_step.vb.sum(1)


class Bound:
    """process:  any discrete one. Where its network learns no variance, that of the posterior is taken.
    steps:    bound by so many of its timesteps, spaced as ``process.levels`` spaces them; None = by all.

    known: (T,) the timesteps that the network is asked at. Raises ValueError for a number of steps there is not.
    """

    def __init__(self, process: DDPM, steps: int | None = None):
        self.process = process
        self.known = respaced(process.num_steps, steps or process.num_steps, process.spacing)  # (T,)
        bar = process.alpha_bar[self.known]
        betas = 1 - bar / torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
        self.q = IDDPM.of(process.betas if len(betas) == process.num_steps else betas)
        self.num_steps = len(betas)

    def terms(
        self,
        net: Net,
        x0: Float[Tensor, "B C H W"],
        step: Int[Tensor, "#B"],
        noise: Float[Tensor, "B C H W"],
        label: Float[Tensor, "B K"] | None = None,
    ) -> Terms:
        """Of each image at its timestep, 0 .. T - 1, or all at one: then what a network makes of it is made once."""
        x_t = self.q.q_sample(x0, step, noise)
        known = self.known.to(step.device)[step]
        eps, v = self.q.split(net(x_t, self.process.noise(known, x0.dtype), known, label, None), x_t)
        p = self.q.reverse(x_t, step, eps, torch.zeros_like(eps) if v is None else v, clip=True)
        implied = self.q.implied_eps(x_t, step, p.x0)
        mse, x0_mse = ((a - b).square().flatten(1).mean(1) for a, b in ((implied, noise), (p.x0, x0)))
        return Terms(self.q.variational_term(x0, x_t, step, p), mse, x0_mse)

    @torch.no_grad()
    def __call__(
        self,
        net: Net,
        x0: Float[Tensor, "B C H W"],
        draws: Draws,
        label: Float[Tensor, "B K"] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> BitsPerDim:
        """The bound of each 8-bit image in [-1, 1]: T evaluations of the network, one draw of noise at each timestep.

        progress:  called with (timesteps done, in all).
        """
        found: list[Terms] = []
        for t in reversed(range(self.num_steps)):
            step = torch.full((1,), t, device=x0.device)
            found.append(self.terms(net, x0, step, draws.normal(*x0.shape[1:], dtype=x0.dtype), label))
            if progress:
                progress(len(found), self.num_steps)
        columns = ([getattr(terms, name) for terms in reversed(found)] for name in ("vb", "mse", "x0_mse"))
        return BitsPerDim(Terms(*(torch.stack(column, dim=1) for column in columns)), self.prior(x0))

    def prior(self, x0: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
        bar = self.q.alpha_bar[-1].to(x0.device, x0.dtype)
        return bits_per_dim(kl(bar.sqrt() * x0, (1 - bar).log(), torch.zeros_like(x0), torch.zeros_like(bar)))

"""IDDPM's denoiser: its process, and the timesteps of its training. Nichol & Dhariwal 2021."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.conditioning import Conditioning
from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.timesteps import LossSecondMoment
from lorafusion.draws import Draws
from lorafusion.processes import Process
from lorafusion.processes.iddpm import IDDPM
from lorafusion.sites import Network


class IDDPMDenoiser(Denoiser):
    """Arguments of ``Denoiser``, and

    timesteps:  'uniform', or 'loss_second_moment' = importance sampling, which the pure variational objective
                (process.objective=vlb) needs to train at all.
    """

    def __init__(
        self,
        net: Network,
        conditioning: Conditioning,
        process: Process,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int], float],
        seed: int = 0,
        name: str = "iddpm",
        label_dropout: float = 0.0,
        timesteps: Literal["uniform", "loss_second_moment"] = "uniform",
    ):
        super().__init__(net, conditioning, process, optimizer, schedule, seed, name, label_dropout)
        if timesteps not in ("uniform", "loss_second_moment"):
            raise ValueError(f"iddpm: timesteps must be 'uniform' or 'loss_second_moment'; got {timesteps!r}")
        self.timesteps = None
        if timesteps == "loss_second_moment":
            if not isinstance(process, IDDPM):
                raise ValueError("iddpm: timesteps=loss_second_moment is for process=iddpm")
            self.timesteps = LossSecondMoment(len(process.betas))
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []  # (index, step, loss) of this step's micro-batches

    def training_loss(self, batch: dict[str, Tensor], draws: Draws) -> Float[Tensor, "B"]:
        if self.timesteps is None or not isinstance(self.process, IDDPM):
            return super().training_loss(batch, draws)
        x0 = batch["image"]
        step, weight = self.timesteps.draw(draws)
        noise = draws.normal(*x0.shape[1:], dtype=x0.dtype)
        loss = self.process.loss_at(self.net, x0, step, noise, self.training_label(batch, draws))
        self._seen.append((batch["index"], step, loss.detach()))
        return loss * weight

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Once a step, before anything is saved."""
        if self.timesteps is not None and self._seen:
            seen = [torch.cat(parts) for parts in zip(*self._seen, strict=True)]
            self._seen = []
            if self.trainer.world_size > 1:
                seen = [self.all_gather(part).flatten() for part in seen]  # pyright: ignore
            self.timesteps.update(*seen)

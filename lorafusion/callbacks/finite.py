"""Non-finite losses and gradients are found before the update, so that no weight, average or checkpoint ever holds one.

A step can be replayed from what is written of it: all randomness follows from the seed and the images' positions.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.files import write_text


class Finite(Callback):
    """folder:  where nonfinite_<step>_<rank>.json is written: step, seed, the images' positions in the stream, the
             losses, and the weights whose gradients are not finite.
    policy:  'stop'; 'skip' = no update in this step; 'zero' = such gradients' elements become 0 and the step is taken,
             as EDM's and IDDPM's own code does.
    most:    'skip' and 'zero' stop too after so many such steps in a row: then it is no accident.
    """

    def __init__(self, folder: str, policy: Literal["stop", "skip", "zero"] = "stop", most: int = 10):
        if policy not in ("stop", "skip", "zero"):
            raise ValueError(f"finite: policy must be 'stop', 'skip' or 'zero'; got {policy!r}")
        if most < 1:
            raise ValueError(f"finite: most must be at least 1; got {most}")
        self.folder, self.policy, self.most = Path(folder), policy, most
        self.in_a_row = 0
        self._losses: list[Tensor] = []  # of this step's micro-batches
        self._indices: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, denoiser: Denoiser, batch: dict[str, Tensor], _: int) -> None:
        self._indices.append(batch["index"])

    def on_before_backward(self, trainer: Trainer, denoiser: Denoiser, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, denoiser: Denoiser, optimizer: Optimizer) -> None:
        losses, indices, self._losses, self._indices = self._losses, self._indices, [], []
        gradients = {n: p.grad for n, p in denoiser.named_parameters() if p.grad is not None}
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        checked = [*losses, *(() if scaled else torch._foreach_norm([*gradients.values()]))]
        # with a scaler of 16-bit gradients, overflow is daily work: it leaves the step out and scales less
        fine = bool(torch.stack([value.float() for value in checked]).isfinite().all())
        if trainer.strategy.reduce_boolean_decision(fine, all=True):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        file = self._write(trainer, denoiser, losses, indices, [] if scaled else _not_finite(gradients))
        what = f"step {trainer.global_step}: the loss or a gradient is not finite"
        if self.policy == "stop" or self.in_a_row >= self.most:
            again = f", {self.in_a_row} times in a row" if self.in_a_row > 1 else ""
            more = "" if self.policy != "stop" else "; callbacks.finite.policy=skip leaves such a step out"
            raise UserError(f"{what}{again}. Nothing was updated; {file} says which images{more}")
        print(f"{what}: {'left out' if self.policy == 'skip' else 'such gradients are 0'}; {file}")
        for parameter in denoiser.parameters():
            if self.policy == "skip":
                parameter.grad = None  # an optimizer passes over it
            elif parameter.grad is not None:
                parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def _write(
        self, trainer: Trainer, denoiser: Denoiser, losses: list[Tensor], indices: list[Tensor], names: list[str]
    ) -> Path:
        record: dict[str, Any] = {
            "step": trainer.global_step,
            "rank": trainer.global_rank,
            "seed": denoiser.seed,
            "images_seen": denoiser.images_seen,  # this step's among them
            "index": torch.cat(indices).tolist(),
            "losses": [repr(float(loss)) for loss in losses],
            "gradients": names,
        }
        file = self.folder / f"nonfinite_{trainer.global_step:09d}_{trainer.global_rank}.json"
        write_text(file, json.dumps(record, indent=1))
        return file


def _not_finite(gradients: dict[str, Tensor]) -> list[str]:
    return [name for name, gradient in gradients.items() if not gradient.isfinite().all()]

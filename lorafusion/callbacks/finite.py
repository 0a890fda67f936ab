"""Non-finite losses and gradients are found before the update, so that no weight, average or checkpoint ever holds one.

A step can be replayed from what is written of it: all randomness follows from the seed and the images' positions.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lorafusion import checkpoint
from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.checkpoint import Checkpoint
from lorafusion.callbacks.ema import EMACallback
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.files import write_text

POLICIES = ("stop", "skip", "zero", "rollback")


class Finite(Callback):
    """folder:  where nonfinite_<step>_<rank>.json is written: step, seed, the images' positions in the stream, the
             losses, and the weights whose gradients are not finite.
    policy:  'stop'; 'skip' = no update in this step; 'zero' = such gradients' elements become 0 and the step is taken,
             as EDM's and IDDPM's own code does; 'rollback' = weights, averages and optimizer become those of the newest
             whole checkpoint again (of the start until there is one), and training goes on with the next images.
    most:    all but 'stop' stop too after so many such steps in a row, 'rollback' after so many without a new
             checkpoint between: then it is no accident.

    A rollback passes over all images since the checkpoint, not only over this step's: the others lead to it again, for
    everything follows from the seed, and to leave out the one step alone would be 'skip'. They count as seen. So a run
    that is killed afterwards and resumed comes to the same step and goes back once more, to the same weights.
    """

    def __init__(self, folder: str, policy: Literal["stop", "skip", "zero", "rollback"] = "stop", most: int = 10):
        if policy not in POLICIES:
            raise ValueError(f"finite: policy must be one of {', '.join(POLICIES)}; got {policy!r}")
        if most < 1:
            raise ValueError(f"finite: most must be at least 1; got {most}")
        self.folder, self.policy, self.most = Path(folder), policy, most
        self.in_a_row = 0
        self._start: dict[str, Any] | None = None
        self._back_to = ""  # where the last rollback went
        self._losses: list[Tensor] = []  # of this step's micro-batches
        self._indices: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        if self.policy == "rollback" and not callbacks_of(trainer, Checkpoint):
            raise UserError("callbacks.finite.policy=rollback goes back to a checkpoint: add checkpoint to callbacks")

    def on_train_epoch_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        """Averages are there, and nothing is updated yet: to go back to until there is a checkpoint."""
        if self.policy == "rollback" and not checkpoint.list_checkpoints(_folder(trainer)):
            self._start = deepcopy(_state(trainer, denoiser))

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
            self.in_a_row *= self.policy == "rollback"
            return
        self.in_a_row += 1
        newest = self._newest(trainer) if self.policy == "rollback" else None
        file = self._write(trainer, denoiser, losses, indices, [] if scaled else _not_finite(gradients))
        what = f"step {trainer.global_step}: the loss or a gradient is not finite"
        if self.policy == "stop" or self.in_a_row >= self.most:
            again = f", {self.in_a_row} times {f'since {self._back_to}' if self._back_to else 'in a row'}"
            more = "; callbacks.finite.policy=skip leaves such a step out, =rollback goes back to the last checkpoint"
            raise UserError(
                f"{what}{again if self.in_a_row > 1 else ''}. Nothing was updated; {file} says which images"
                f"{more if self.policy == 'stop' else ''}"
            )
        if self.policy == "rollback":
            state = checkpoint.load(newest, denoiser.device) if newest else self._start
            assert state is not None  # _newest raises where there is neither
            _restore(trainer, denoiser, optimizer, state)
        done = {
            "skip": "left out",
            "zero": "such gradients are 0",
            "rollback": f"back to the weights of {self._back_to}",
        }
        print(f"{what}: {done[self.policy]}; {file}")
        for parameter in denoiser.parameters():
            if self.policy != "zero":
                parameter.grad = None  # an optimizer passes over it
            elif parameter.grad is not None:
                parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def _newest(self, trainer: Trainer) -> Path | None:
        """The checkpoint to go back to, the same on all ranks; None = the start."""
        path: Path | None = trainer.strategy.broadcast(checkpoint.newest(_folder(trainer)))
        if path is None and self._start is None:
            raise UserError(f"step {trainer.global_step}: not finite, and no checkpoint is whole in {_folder(trainer)}")
        name = str(path or "the start")
        if name != self._back_to:
            self._back_to, self.in_a_row = name, 1
        return path

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
            **({"back_to": self._back_to} if self._back_to else {}),
        }
        file = self.folder / f"nonfinite_{trainer.global_step:09d}_{trainer.global_rank}.json"
        write_text(file, json.dumps(record, indent=1))
        return file


def _not_finite(gradients: dict[str, Tensor]) -> list[str]:
    return [name for name, gradient in gradients.items() if not gradient.isfinite().all()]


def _folder(trainer: Trainer) -> Path:
    """Of the run's checkpoints."""
    return callbacks_of(trainer, Checkpoint)[0].folder


def _state(trainer: Trainer, denoiser: Denoiser) -> dict[str, Any]:
    """What a rollback restores, as a checkpoint has it."""
    state: dict[str, Any] = {"state_dict": denoiser.state_dict()}
    state["optimizer_states"] = [optimizer.state_dict() for optimizer in trainer.optimizers]
    for callback in callbacks_of(trainer, EMACallback):
        callback.on_save_checkpoint(trainer, denoiser, state)
    return state


def _restore(trainer: Trainer, denoiser: Denoiser, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Weights, averages and the optimizer's state; what is counted goes on."""
    denoiser.load_state_dict(state["state_dict"])
    optimizer.load_state_dict(deepcopy(state["optimizer_states"][0]))
    for callback in callbacks_of(trainer, EMACallback):
        callback.restore(denoiser, state.get("ema"))

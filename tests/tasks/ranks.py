"""Training runs over several processes that noted every step: what each saw, its gradients, and what came of them.

The processes are forked from the server of runs.py and meet through gloo; each runs all the trainings it is given, for
starting one costs more than a tiny training.
"""

import logging
import multiprocessing
import os
import traceback
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict
from torch import Tensor

from tests.tasks.runs import composed, tiny

cached = cache(composed)
SGD = "denoiser.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.01, fused: false}"
BATCH = 12
U_NET = (
    *("backbone.model_channels=16", "backbone.channel_mult=[1,1]", "backbone.num_blocks=1", "backbone.dropout=0.0"),
    *("backbone.attn_resolutions=[4]", "backbone.heads=2"),
)
DENOISERS = {
    "nano": (
        *("process=ddpm", "process.num_steps=50", "backbone.widths=[8,8,16]", "backbone.attn_resolutions=[2,4]"),
        "conditioning/attn=[time_lora,uc_lora]",
    ),
    "iddpm": (
        *("process=iddpm", "process.num_steps=50", "denoiser=iddpm", "backbone=iddpm_32", *U_NET),
        *("conditioning/conv=[scale_shift]", "conditioning/attn=[time_lora,uc_lora]"),
    ),
    "edm": (
        *("process=edm", "denoiser=edm", "denoiser.augment.p=0.5", "backbone=ddpmpp_32", *U_NET),
        "conditioning/attn=[uc_lora]",
    ),
}


def settings(folder: Path, name: str, *more: str) -> tuple[str, ...]:
    """Overrides of a training of one of DENOISERS, of batches of BATCH, its rate ramping up over five."""
    dropped = ("backbone.", "conditioning.attn", "data.batch_size", "images=")
    own = [o for o in tiny(folder, callbacks=("ema",)) if not o.startswith(dropped)]
    small = ("conditioning.attn.uc_lora.mlp=[8]", "conditioning.attn.uc_lora.num_bases=3", f"data.batch_size={BATCH}")
    ramp = ("" if name == "edm" else "+") + "denoiser.schedule.rampup_images=60"
    return (*own, *DENOISERS[name], *small, ramp, SGD, "logger=[]", *more)


@dataclass(frozen=True)
class Training:
    """overrides:   of task=train; trainings that share them are composed once, which takes longer than a tiny training.
    accumulate:  micro-batches of each process.
    double:      float64.
    save:        a folder for a checkpoint at every step.
    resume:      from this checkpoint.
    """

    name: str
    overrides: tuple[str, ...]
    accumulate: int = 1
    double: bool = False
    save: str | None = None
    resume: str | None = None


@dataclass
class Step:
    """What one rank noted of one optimizer step; index and loss of each of its images."""

    lr: float
    index: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]
    ema: dict[str, Tensor] = field(default_factory=dict)
    timesteps: dict[str, Tensor] = field(default_factory=dict)
    given: list[Tensor] = field(default_factory=list)  # to the timesteps' state: index, step, loss


def train(world_size: int, trainings: list[Training], folder: Path) -> dict[str, list[list[Step]]]:
    """name -> the steps of each rank."""
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    processes = [
        context.Process(target=_rank, args=(rank, world_size, trainings, folder)) for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    for process in processes:
        if process.is_alive():
            process.kill()
    said = "".join(file.read_text() for file in sorted(folder.glob("error_*")))
    assert [process.exitcode for process in processes] == [0] * world_size, said
    return {t.name: [_read(folder / f"{t.name}_{rank}.pt") for rank in range(world_size)] for t in trainings}


def _read(file: Path) -> list[Step]:
    return [Step(**content) for content in torch.load(file, weights_only=True)]


def _rank(rank: int, world_size: int, trainings: list[Training], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # not used: the group exists already
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    try:
        if world_size > 1:
            at = {"init_method": f"file://{folder}/rendezvous", "timeout": timedelta(seconds=60)}
            torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size, **at)
        for training in trainings:
            steps = _train(training, world_size)
            torch.save([vars(step) for step in steps], folder / f"{training.name}_{rank}.pt")
    except BaseException:
        (folder / f"error_{rank}").write_text(traceback.format_exc())
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _train(training: Training, world_size: int) -> list[Step]:
    from hydra.utils import instantiate

    from lorafusion.callbacks.checkpoint import Checkpoint
    from lorafusion.tasks.train import build_trainer

    cfg = cached(*training.overrides).copy()
    with open_dict(cfg):
        cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = world_size, training.accumulate
        cfg.trainer.strategy = "ddp" if world_size > 1 else "auto"
        cfg.trainer.precision = "64-true" if training.double else "32-true"
    torch.manual_seed(0)
    denoiser = instantiate(cfg.denoiser, _convert_="all")
    denoiser.to(torch.float64 if training.double else torch.float32)  # Lightning would, but after it has loaded weights
    with torch.no_grad():
        for parameter in denoiser.net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # nothing is zero, as LoRA's B is at first
    trainer = build_trainer(cfg)
    notes = _notes(training.double)
    trainer.callbacks.append(notes)  # behind EMA
    if training.save:
        trainer.callbacks.append(Checkpoint(training.save, every_images=1, keep=99))
    data = instantiate(cfg.data, _convert_="all")
    trainer.fit(denoiser, datamodule=data, ckpt_path=training.resume, weights_only=True)
    return notes.steps


def _notes(double: bool) -> Any:
    from lightning import Callback

    from lorafusion.callbacks import callbacks_of
    from lorafusion.callbacks.ema import EMACallback

    class Notes(Callback):
        def __init__(self):
            self.steps: list[Step] = []
            self.parts: list[tuple[Tensor, Tensor]] = []  # index, loss of each micro-batch

        def on_train_start(self, trainer, denoiser):
            loss = denoiser.training_loss

            def noted(batch, draws):
                found = loss(batch, draws)
                self.parts.append((batch["index"], found.detach()))
                return found

            denoiser.training_loss = noted

        def on_train_batch_start(self, trainer, denoiser, batch, batch_idx):
            batch["image"] = batch["image"].to(torch.float64 if double else torch.float32)

        def on_before_optimizer_step(self, trainer, denoiser, optimizer):
            index, loss = (torch.cat(part) for part in zip(*self.parts, strict=True))
            self.parts = []
            gradients = {n: p.grad.clone() for n, p in denoiser.net.named_parameters()}
            step = Step(optimizer.param_groups[0]["lr"], index, loss, gradients)
            step.given = [torch.cat(part) for part in zip(*getattr(denoiser, "_seen", []), strict=True)]
            self.steps.append(step)

        def on_train_batch_end(self, trainer, denoiser, outputs, batch, batch_idx):
            if self.parts:
                return  # gradients are still being accumulated
            for callback in callbacks_of(trainer, EMACallback):
                content = {}
                callback.on_save_checkpoint(trainer, denoiser, content)
                self.steps[-1].ema = {name: average.clone() for name, average in content["ema"].items()}
            timesteps = getattr(denoiser, "timesteps", None)
            self.steps[-1].timesteps = (
                {} if timesteps is None else {k: v.clone() for k, v in timesteps.state_dict().items()}
            )

    return Notes()

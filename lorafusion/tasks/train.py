"""Train a denoiser, or go on training it."""

import csv
import logging
import math
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig, OmegaConf

from lorafusion import checkpoint
from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.checkpoint import Checkpoint, WholeFileIO
from lorafusion.callbacks.ema import EMACallback
from lorafusion.errors import UserError
from lorafusion.logger import closing
from lorafusion.tasks import initial, profile, run_folder
from lorafusion.tasks.status import Status


def train(cfg: DictConfig) -> float | None:
    """The last value of what ``cfg.objective`` names, for a sweep that optimises it."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the stream feeds faster than nets eat
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # between Lightning and torch
    warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch.*")  # no epochs
    folder, lock = run_folder.create(cfg)
    with lock, ExitStack() as stack:
        resume = _resume(cfg.resume, folder)
        status = Status(folder, cfg.images, goes_on=resume is not None, write=run_folder.rank() == 0)
        stack.enter_context(status)
        if cfg.get("pretrained") and not (cfg.init_from or resume):
            raise UserError(
                f"{cfg.name} starts from a pretrained base: say which by init_from=..., or pretrained=false"
            )
        trainer = build_trainer(cfg)
        trainer.callbacks.append(status)  # pyright: ignore[reportAttributeAccessIssue]
        stack.enter_context(closing(trainer.loggers, lambda: exit_code(trainer)))
        for logger in trainer.loggers:
            logger.log_hyperparams(cast(dict, OmegaConf.to_container(cfg, resolve=True)))
        denoiser = initial.build(cfg)
        if cfg.init_from is not None:
            goes_on = f"not read, the run goes on from {resume}"
            print(f"init_from: {goes_on if resume else initial.start_from(denoiser, cfg.init_from)}")
        if status.write:
            profile.write_size(cfg, folder / "model.json")
        if cfg.compile:
            denoiser.compile_net()
        data = instantiate(cfg.data, _convert_="all")
        trainer.fit(denoiser, datamodule=data, ckpt_path=resume, weights_only=True)
        status.objective = last_value(cfg.objective, trainer, folder) if status.write else None
    print(folder)
    if code := exit_code(trainer):
        raise SystemExit(code)
    return status.objective


def last_value(name: str | None, trainer: Trainer, folder: Path) -> float | None:
    """Of what was logged under ``name``; None, and a line that says so, where nothing was."""
    if name is None:
        return None
    if name in trainer.callback_metrics:
        return float(trainer.callback_metrics[name])
    file = folder / "metrics.csv"
    rows = list(csv.DictReader(file.read_text().splitlines())) if file.is_file() else []
    values = [row[name] for row in rows if row.get(name)]
    if not values:
        print(f"objective={name} was not measured; {', '.join(rows[0]) if rows else 'nothing'} was")
        return None
    return float(values[-1])


def exit_code(trainer: Trainer) -> int:
    """Of a process whose training ended without an error: 0, or 128 + the signal that asked it to stop."""
    return next((128 + c.stopped_by for c in callbacks_of(trainer, Checkpoint) if c.stopped_by), 0)


def build_trainer(cfg: DictConfig) -> Trainer:
    """The trainer of ``cfg``, its length and intervals turned from images into steps."""
    batch = cfg.data.batch_size
    validate_every = max(1, cfg.validate_every_images // batch) * cfg.trainer.accumulate_grad_batches
    callbacks = sorted(_chosen(cfg.get("callbacks")), key=_turn)
    return instantiate(
        cfg.trainer,
        max_steps=math.ceil(cfg.images / batch),
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,  # an endless stream has no epochs
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the stream is already cut by rank
        logger=_chosen(cfg.get("logger")),
        callbacks=callbacks,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        plugins=[WholeFileIO()],
        enable_checkpointing=False,  # Lightning's own; ours is a callback
        _convert_="all",
    )


def _turn(callback: Callback) -> int:
    """Averages first, for others look at them; checkpoints last, so that a run that is killed while it draws or
    measures goes on from before and does that again.
    """
    return -1 if isinstance(callback, EMACallback) else 1 if isinstance(callback, Checkpoint) else 0


def _chosen(nodes: DictConfig | None) -> list:
    """What was chosen; an experiment may also hold settings for what was not."""
    return [instantiate(node, _convert_="all") for node in (nodes or {}).values() if "_target_" in node]


def _resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint to go on from. Raises UserError where the one that was named is damaged, or not there."""
    if resume is None:
        return None
    if resume == "auto":
        newest = checkpoint.newest(folder / "checkpoints")
        print(f"resume: {newest}" if newest else "resume: no checkpoint yet, starting from the beginning")
        return newest
    path = run_folder.find_checkpoint(resume)
    checkpoint.verify(path)
    return path

"""When checkpoints are written: every so many images, at the end, and when the process is asked to stop."""

import signal
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from lorafusion.callbacks import due
from lorafusion.checkpoint import SUFFIX, list_checkpoints, load, remove_stale, save
from lorafusion.denoisers.base import Denoiser

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # SIGUSR1: SLURM's warning before the time limit


class WholeFileIO(CheckpointIO):
    """Lightning's reads and writes, by ``lorafusion.checkpoint``: atomic, with a checksum, never running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoint(Callback):
    """folder:        where; files are named by the images seen.
    every_images:  > 0.
    keep:          so many of the newest stay, at least 1; 2 or more leave one to go back to if the newest is damaged.
    """

    def __init__(self, folder: str, every_images: int, keep: int = 3):
        if every_images < 1 or keep < 1:
            raise ValueError(f"checkpoint: every_images and keep must be at least 1; got {every_images} and {keep}")
        self.folder, self.every_images, self.keep = Path(folder), every_images, keep
        self.stopped_by: signal.Signals | None = None
        self._saved = 0  # images seen at the last save
        self._step = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._saved, self._step = denoiser.images_seen, trainer.global_step
        if trainer.is_global_zero:
            remove_stale(self.folder)
        self._handlers = {s: signal.signal(s, self._note) for s in STOP_SIGNALS}

    def _note(self, number: int, frame: Any) -> None:
        """Only remember: saving inside a signal handler tears checkpoints."""
        self.stopped_by = signal.Signals(number)

    def on_train_batch_end(self, trainer: Trainer, denoiser: Denoiser, *_: Any) -> None:
        if trainer.global_step == self._step:
            return  # gradients are still being accumulated
        self._step = trainer.global_step
        if self.stopped_by or due(trainer, denoiser, self.every_images, self._saved):
            self._saved = denoiser.images_seen
            trainer.save_checkpoint(self.folder / f"{self._saved:012d}{SUFFIX}")
            if trainer.is_global_zero:
                for old in list_checkpoints(self.folder)[: -self.keep]:
                    old.unlink(missing_ok=True)
        if self.stopped_by:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, denoiser: Denoiser, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        """Else what runs next in this process, another job of a sweep say, could not be stopped."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

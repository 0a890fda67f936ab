"""What training does in a second and what it takes: images/s, memory, and the learning rate that it is at."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from lightning import Callback, Trainer

from lorafusion.denoisers.base import Denoiser

_STATM = Path("/proc/self/statm")  # Linux


class Throughput(Callback):
    """every_steps: > 0. Logged then are

    images_per_s:  of all devices together since the last time; without validation and metric, not without grids.
    memory_mib:    on a GPU the most that tensors took so far, elsewhere what the process takes now.
    lr:            learning rate of the last step.
    """

    def __init__(self, every_steps: int = 50):
        if every_steps < 1:
            raise ValueError(f"throughput: every_steps must be at least 1; got {every_steps}")
        self.every_steps = every_steps
        self._at = (0.0, 0)  # time and images
        self._step = 0
        self._aside = ExitStack()  # while it validates

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        if denoiser.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(denoiser.device)
        self._at, self._step = (time.monotonic(), denoiser.images_seen), trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, denoiser: Denoiser, *_: object) -> None:
        step = trainer.global_step
        if step == self._step or step % self.every_steps:
            return  # gradients are still being accumulated, or it is not time yet
        now, images = time.monotonic(), denoiser.images_seen
        then, before = self._at
        self._at, self._step = (now, images), step
        values = {
            "images_per_s": (images - before) / (now - then),
            "memory_mib": memory_mib(denoiser.device),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "nimg": float(images),
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step - 1)  # Lightning counts a step once it has logged it

    def on_validation_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._aside.enter_context(self.aside())

    def on_validation_end(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._aside.close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time that is not counted."""
        begin = time.monotonic()
        try:
            yield
        finally:
            then, before = self._at
            self._at = (then + time.monotonic() - begin, before)


def memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATM.is_file():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the most so far, in bytes on macOS
    return most / 2**20 if sys.platform == "darwin" else most / 2**10

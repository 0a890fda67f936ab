"""Progress of training: a bar with images/s, loss and time left; without a terminal, a plain line now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lorafusion.denoisers.base import Denoiser


class Progress(ProgressBar):
    """images:   of the whole training.
    every_s:  seconds between refreshes of the figures (reading the loss waits for the device).
    """

    def __init__(self, images: int, every_s: float = 1.0):
        super().__init__()
        self.images = images
        self.every_s = every_s
        self.console = Console()
        self._bar: Bar | None = None
        self._at = (0.0, 0)  # time and images at the last refresh
        self._line_at = 0.0

    def disable(self) -> None:
        """Lightning calls this on all ranks but the first."""
        self.console = Console(quiet=True)

    def enable(self) -> None:
        self.console = Console()

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._start = self._at = (time.monotonic(), denoiser.images_seen)
        self._line_at = time.monotonic()
        if self.console.is_terminal:
            columns = (MofNCompleteColumn(), TextColumn("images"), BarColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = Bar(
                *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self.images, completed=denoiser.images_seen, figures="")

    def on_train_batch_end(
        self, trainer: Trainer, denoiser: Denoiser, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, images = time.monotonic(), denoiser.images_seen
        then, before = self._at
        if now - then < self.every_s:
            return
        rate, loss = (images - before) / (now - then), float(outputs["loss"])
        self._at = (now, images)
        if self._bar:
            self._bar.update(self._task, completed=images, figures=f"{rate:,.0f}/s  loss {loss:.4f}")
        elif now - self._line_at >= 30 * self.every_s:
            self._line_at, left = now, (self.images - images) / rate
            line = f"{images:,} images  {rate:,.0f}/s  loss {loss:.4f}  {left:,.0f} s left"
            self.console.print(line, highlight=False)

    def on_train_end(self, trainer: Trainer, denoiser: Denoiser) -> None:
        if self._bar:
            self._bar.update(self._task, completed=denoiser.images_seen)
        self._stop()
        started, before = self._start
        seconds, images = time.monotonic() - started, denoiser.images_seen - before
        self.console.print(f"{images:,} images in {seconds:,.0f} s, {images / seconds:,.0f} images/s", highlight=False)

    def on_exception(self, trainer: Trainer, denoiser: Denoiser, exception: BaseException) -> None:
        self._stop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The bar is off the screen for a while, which is not counted as training."""
        begin = time.monotonic()
        if self._bar:
            self._bar.stop()
        try:
            yield
        finally:
            away = time.monotonic() - begin
            self._start, self._at = ((then + away, images) for then, images in (self._start, self._at))
            self._line_at += away
            if self._bar:
                self._bar.start()

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

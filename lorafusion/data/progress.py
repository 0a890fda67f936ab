"""A progress bar for work that may be short: it appears after two seconds, with rate and time left."""

import time
from collections.abc import Iterator
from typing import TypeVar

from rich import progress as rich_progress
from rich.console import Console

T = TypeVar("T")

_DELAY = 2.0  # seconds


class Progress:
    """Context manager; ``total`` items are expected. Nothing is shown where the work is done within two seconds."""

    def __init__(self, title: str, total: int, delay: float = _DELAY):
        self.title, self.total, self.delay = title, total, delay
        self.bar: rich_progress.Progress | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.stop()

    def over(self, items: Iterator[T]) -> Iterator[T]:
        """The same items, counted."""
        begin = shown = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - begin > self.delay and now - shown > 0.1:
                self._show(done, done / (now - begin))
                shown = now
            yield item
        if self.bar is not None:
            self._show(self.total, self.total / (time.monotonic() - begin))

    def _show(self, done: int, rate: float) -> None:
        if self.bar is None:
            self.bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[rate]} images/s"),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, rate="")
        self.bar.update(self.task, completed=done, rate=f"{rate:,.0f}")

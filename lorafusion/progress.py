"""Progress of work that is counted as it goes, with rate and time left; work of less than two seconds shows nothing.

On a terminal a bar, which goes when the work is done; elsewhere, in a log file say, a plain line now and then.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]  # called with (done, in all)
T = TypeVar("T")

_REFRESH = 0.1  # seconds


@contextmanager
def bar(
    title: str, unit: str, *, delay: float = 2.0, every: float = 30.0, console: Console | None = None
) -> Iterator[Report]:
    """Yields ``report(done, total)``, which may be called as often as one likes.

    unit:   what is counted, in the plural.
    delay:  seconds before anything is shown.
    every:  seconds between plain lines.
    """
    shown = _Shown(title, unit, delay, every, console or Console(stderr=True))
    try:
        yield shown.report
    finally:
        shown.stop()


def counted(items: Iterable[T], total: int, report: Report) -> Iterator[T]:
    """The same items, each reported once it has been dealt with."""
    for done, item in enumerate(items, start=1):
        yield item
        report(done, total)


class _Shown:
    def __init__(self, title: str, unit: str, delay: float, every: float, console: Console):
        self.title, self.unit, self.every, self.console = title, unit, every, console
        self.bar: Progress | None = None
        self.first: tuple[float, int] | None = None  # time and count at the first report: resumed work begins late
        self.next = time.monotonic() + delay

    def report(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = now, done
        begin, before = self.first
        if done == before or (now < self.next and not (self.bar and done == total)):
            return  # at first there is no rate yet
        rate = (done - before) / max(now - begin, 1e-9)
        terminal = self.console.is_terminal
        self.next = now + (_REFRESH if terminal else self.every)
        if terminal:
            self._draw(done, total, rate)
        else:
            left = f"{(total - done) / rate:,.0f} s left"
            line = f"{self.title}: {done:,} of {total:,} {self.unit}, {rate:,.0f}/s, {left}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def _draw(self, done: int, total: int, rate: float) -> None:
        if self.bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            columns = (*columns, TextColumn(f"{{task.fields[rate]}} {self.unit}/s"), TimeRemainingColumn())
            self.bar = Progress(*columns, transient=True, console=self.console)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=total, rate="")
        self.bar.update(self.task, completed=done, total=total, rate=f"{rate:,.0f}")

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()

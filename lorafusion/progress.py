"""A progress bar with rate and time left, for work that is counted as it goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed:,.0f}/s" if task.speed else ""


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields ``report(done, total)``. Draws nothing where there is no terminal."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit), _Rate(), TimeRemainingColumn())
    console = Console()
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""The run folders among what somebody names: a run, a sweep, a folder of these, or a pattern."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lorafusion.errors import UserError

MARKS = ("config.yaml", "metrics.csv", "status.json")  # any of them makes a folder a run's
DEPTH = 5  # folders below a named one; outputs/<date>/<sweep>/<job> is 3
WILD = frozenset("*?[")


def find(named: Iterable[str]) -> list[Path]:
    """Absolute folders, each once, in the order of their names, 2 before 10. Raises UserError where there is none."""
    named = [str(name) for name in named]
    found = {run: None for name in named for start in _matches(name) for run in _below(start, DEPTH)}
    if not found:
        raise UserError(
            f"runs={','.join(named)}: no run in there; a run's folder holds {' or '.join(MARKS)}, "
            f"at most {DEPTH} folders below the named one"
        )
    return sorted(found, key=lambda folder: [_natural(part) for part in folder.parts])


def is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS) or any(folder.glob("wandb/offline-run-*/*.wandb"))


def _matches(name: str) -> list[Path]:
    """Raises UserError for a name that is no folder; a pattern may match none."""
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        return [path]
    if not WILD & {*name}:
        raise UserError(f"runs={name}: there is no such folder")
    try:
        return sorted(match for match in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if match.is_dir())
    except ValueError as error:  # ** within a name
        raise UserError(f"runs={name}: {error}") from error


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Runs hold no runs. Links are not followed: they may lead round in circles, or out."""
    if is_run(folder):
        yield folder
        return
    try:
        inside = [entry for entry in folder.iterdir() if depth and entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return
    for entry in inside:
        if not entry.name.startswith("."):
            yield from _below(entry, depth - 1)


def _natural(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdecimal() and len(part) < 10 else (1, 0, part)

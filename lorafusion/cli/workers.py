"""Jobs of a sweep that run at the same time, several processes on one machine (hydra/launcher=joblib).

Each process takes its share of the graphics cards by CUDA_VISIBLE_DEVICES, and keeps it: of g cards and w processes,
process k sees cards k, k+w, k+2w, ...; where there are fewer cards than processes, card k mod g. Of the cores joblib
gives each process cores / w threads (OMP_NUM_THREADS), unless that is set. What a job prints goes to output.txt in its
own folder, for several progress bars in one terminal are a mess; the terminal gets a line when a job begins and ends.
"""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorafusion.cli.notes import FOLDER

OUTPUT = "output.txt"
_held: dict[str, Any] = {}  # this process's number among its fellows, and the lock that keeps it


def at_once(launcher: Any) -> int:
    """How many jobs a launcher runs at a time in processes of this machine."""
    if "joblib" not in str(launcher.get("_target_")):
        return 1
    from joblib import effective_n_jobs

    return effective_n_jobs(launcher.get("n_jobs", -1))


@contextmanager
def own(launcher: Any, sweep: Path, run: Path) -> Iterator[tuple[Callable[[str], Any], bool]]:
    """While a job runs: its own cards and output. Yields (what tells whoever watches, whether it is alone)."""
    workers = at_once(launcher)
    if workers < 2:
        yield (lambda text: None), True  # Hydra has said which job this is, and what it prints can be seen
        return
    _take_cards(sweep, workers)
    with redirected(run / OUTPUT) as terminal:
        yield (lambda text: os.write(terminal, f"{text}\n".encode())), False


def _take_cards(sweep: Path, workers: int) -> None:
    if "number" not in _held:
        _held["number"] = _number(sweep / FOLDER, workers)
        if share := cards_of(_held["number"], workers, cards()):
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share)


def _number(folder: Path, workers: int) -> int:
    """The smallest number that no living fellow holds."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(workers):
        lock = (folder / f"worker_{number}.lock").open("w")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held["lock"] = lock
        return number
    return os.getpid() % workers  # more fellows than were said


def cards() -> list[str]:
    """The graphics cards that this machine has for us, as CUDA_VISIBLE_DEVICES names them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    return [str(k) for k in range(sum(file.name[6:].isdigit() for file in Path("/dev").glob("nvidia*")))]


def cards_of(number: int, workers: int, every: list[str]) -> list[str]:
    """The share of one of several processes; [] where there are no cards."""
    return every[number::workers] or every[number % len(every) :][:1] if every else []


@contextmanager
def redirected(file: Path) -> Iterator[int]:
    """What this process and its children print goes to the end of ``file``. Yields where it went before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    before = os.dup(1), os.dup(2)
    with file.open("a") as target:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
    try:
        yield before[0]
    finally:
        _flush()
        for k, descriptor in enumerate(before, start=1):
            os.dup2(descriptor, k)
            os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()

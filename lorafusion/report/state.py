"""What became of a run: what its status.json says, and whether anybody is at it."""

import fcntl
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATES = ("finished", "running", "stopped", "failed", "killed", "unfinished")


@dataclass(frozen=True)
class State:
    """name: one of STATES. killed = said that it runs, and nobody does. unfinished = without status.json, and short.

    error: of a failed run, one line. seconds: that it took.
    """

    name: str
    error: str | None = None
    seconds: float | None = None


def state_of(folder: Path, status: dict[str, Any], images_seen: float, images: float | None) -> State:
    """images: the length of the run, where its config says so."""
    said = status.get("state")
    seconds = number(status.get("seconds"))
    error = " ".join(str(status["error"]).split()) if status.get("error") else None
    if said in ("finished", "failed", "stopped"):
        return State(str(said), error, seconds)
    if is_locked(folder / ".lock"):
        return State("running", error, seconds)
    if said == "running":
        return State("killed", error, seconds)
    return State("finished" if images and images_seen >= images else "unfinished", error, seconds)


def is_locked(lock: Path) -> bool:
    """Whether a process of this machine holds a run's lock; a copied or unreadable folder counts as nobody's."""
    try:
        file = lock.open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # a file system without locks
            return False
    return False


def number(value: Any) -> float | None:
    """A number that a file holds, None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def count(value: Any) -> int | None:
    """A whole number that a file holds, rounded down; None for anything else, nan and inf too."""
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) else None

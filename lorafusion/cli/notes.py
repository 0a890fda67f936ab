"""What a sweep's folder notes of its jobs, below .jobs/: which overrides each has, where it writes, how it ended.

A run of task=train says more about itself in its own folder (status.json, config.yaml, metrics.csv). Both survive the
process, so that a table can be made, and the sweep gone on with, whatever became of it.
"""

import csv
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lorafusion.files import json_object, write_text

FOLDER = ".jobs"
UNMEASURED = {"step", "nimg", "loss", "epoch", "lr"}  # columns of metrics.csv that judge nothing
SPEEDS = ("images_per_s", "memory")  # columns that begin so are of the machine, not of the model


@dataclass
class Note:
    """job:        its number.
    folder:     where it writes, relative to the sweep's folder.
    overrides:  all that it was composed with.
    state:      pending running finished failed stopped; a dead process leaves 'running' behind.
    error:      one line.
    returned:   what the task returned, if that is a number.
    """

    job: int
    folder: str
    overrides: list[str]
    state: str = "pending"
    error: str | None = None
    returned: float | None = None

    def write(self, sweep: Path, state: str, error: str | None = None) -> None:
        self.state, self.error = state, error
        name = self.folder.replace("/", "_").strip(".") or str(self.job)
        write_text(sweep / FOLDER / f"{name}.json", json.dumps(asdict(self), indent=2) + "\n")


def read_all(sweep: Path) -> list[Note]:
    """Notes of the jobs that began, by number; one that cannot be read is left out."""
    found = []
    for file in sorted((sweep / FOLDER).glob("*.json")):
        try:
            found.append(Note(**json.loads(file.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda note: (note.job, note.folder))


def settle(sweep: Path, note: Note) -> Note:
    """The note, with what the run's own folder knows better; 'running' without a living process is 'killed'."""
    status = json_object(sweep / note.folder / "status.json")
    if note.state == "running" and not _is_alive(sweep / note.folder):
        note.state = "killed"
        if status.get("state") in ("failed", "stopped"):
            note.state, note.error = str(status["state"]), status.get("error")
    return note


def measured(run: Path) -> dict[str, str]:
    """The last value of what judges a run, from metrics.csv, then metrics.json; val_loss first, speeds last."""
    found: dict[str, str] = {}
    for row in _rows(run / "metrics.csv"):
        found |= {k: v for k, v in row.items() if k not in UNMEASURED and _is_number(v)}
    for name, entry in json_object(run / "metrics.json").items():
        value = entry.get("value") if isinstance(entry, dict) else entry
        if isinstance(value, int | float):
            found[name] = repr(value)
    return dict(sorted(found.items(), key=lambda pair: (pair[0] != "val_loss", pair[0].startswith(SPEEDS))))


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(newline="") as lines:
            yield from csv.DictReader(lines)
    except OSError:
        return


def _is_alive(run: Path) -> bool:
    """Whether a process holds the run's lock; run_folder.py says how it is held."""
    try:
        with (run / ".lock").open("r+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def first_process() -> bool:
    """Whether this is the one of a job's processes that speaks for it: torchrun, SLURM and Lightning number them."""
    return next((os.environ[k] for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if k in os.environ), "0") == "0"

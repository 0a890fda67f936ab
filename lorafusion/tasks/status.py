"""status.json: how a run stands, for the table of a sweep and for whoever goes on with it.

    {"state": "running" | "finished" | "failed" | "stopped", "error": null | one line, "started": ISO 8601,
     "ended": ISO 8601 | null, "seconds": of all its parts together, "images_seen": ..., "images": to train on,
     "objective": what it returned to a sweep, null until it has finished}

A killed run stays "running", and nobody holds the lock of its folder.
"""

import json
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning import Callback, Trainer

from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.checkpoint import Checkpoint
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.files import json_object, write_text

FILE = "status.json"
EVERY_S = 20.0  # a running run writes as often, so that a killed one says how far it was


class Status(Callback):
    """Writes the status of a run for as long as the ``with`` block lasts, and how it ended.

    folder:   of the run.
    images:   training length.
    goes_on:  the run was here before: its start stays, its seconds add up.
    write:    false on all but the first process of a distributed run.
    """

    def __init__(self, folder: Path, images: int, *, goes_on: bool, write: bool = True):
        self.file, self.images, self.write = folder / FILE, images, write
        before = read(folder) if goes_on else {}
        self.started = str(before.get("started", _now()))
        self.seconds, self.images_seen = float(before.get("seconds", 0)), int(before.get("images_seen", 0))
        self.objective: float | None = None
        self.stopped_by: signal.Signals | None = None
        self._since = self._written = time.monotonic()

    def __enter__(self) -> "Status":
        self._write("running")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and self.stopped_by:
            self._write("stopped", self.stopped_by.name)
        elif error is None:
            self._write("finished")
        elif was_stopped(error):
            self._write("stopped", "interrupted")
        else:
            self._write("failed", one_line(error))

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self.images_seen = denoiser.images_seen

    def on_train_batch_end(self, trainer: Trainer, denoiser: Denoiser, *_: Any) -> None:
        self.images_seen = denoiser.images_seen
        if time.monotonic() - self._written > EVERY_S:
            self._write("running")

    def on_train_end(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self.stopped_by = next((c.stopped_by for c in callbacks_of(trainer, Checkpoint) if c.stopped_by), None)

    def _write(self, state: str, error: str | None = None) -> None:
        if not self.write:
            return
        self._written = time.monotonic()
        content = {
            "state": state,
            "error": error,
            "started": self.started,
            "ended": None if state == "running" else _now(),
            "seconds": round(self.seconds + self._written - self._since, 3),
            "images_seen": self.images_seen,
            "images": self.images,
            "objective": self.objective,
        }
        write_text(self.file, json.dumps(content, indent=2) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """What a run's folder says; {} where it says nothing that can be read."""
    return json_object(folder / FILE)


def was_stopped(error: BaseException) -> bool:
    """Whether the user or the system asked a run to stop: Lightning makes SystemExits of both."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit)
        and (isinstance(error.__context__, KeyboardInterrupt) or type(error).__name__ == "SIGTERMException")
    )


def one_line(error: BaseException) -> str:
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:  # Hydra's wrapping
        error = error.__cause__
    said = " ".join(str(error).split())[:300]
    return said if isinstance(error, UserError) else f"{type(error).__name__}: {said}".removesuffix(": ")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""Images on their way to the disk in shards: files that are whole or not there, drawn by any number of processes.

    <out>/shards/settings.json   what decides the images, and what drew them
    <out>/shards/00000.npy ...   uint8 (n, H, W, C); shard k is drawn by process k modulo their number

Processes share nothing else, so they need no connection: they may start and end when they like, on one machine or on
several that see the same folder. A killed process leaves whole shards, which the next one does not draw again.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lorafusion.errors import UserError
from lorafusion.files import replacing, write_text

SETTINGS = "settings.json"
_POLL = 0.2  # seconds
_NAMED = 3  # differences that a message names


@dataclass
class Shards:
    """out: where the samples go. n: of how many images. size: of a shard, the last may be smaller. shape: (H, W, C)."""

    out: Path
    n: int
    size: int
    shape: tuple[int, int, int]
    whole: set[int] = field(default_factory=set)  # those seen

    @property
    def folder(self) -> Path:
        return self.out / "shards"

    def __len__(self) -> int:
        return math.ceil(self.n / self.size)

    def rows(self, k: int) -> slice:
        return slice(k * self.size, min(self.n, (k + 1) * self.size))

    def path(self, k: int) -> Path:
        return self.folder / f"{k:05d}.npy"

    def claim(self, settings: dict[str, Any], maker: dict[str, Any], *, first: bool) -> None:
        """Say what is drawn here, and by what; any process may be the first to come, one is ``first`` in rank.

        Raises UserError where shards of other settings lie.
        """
        there = self._settings()
        different = differences(there["settings"], settings) if there else ""
        if different and (shards := self._files()):
            raise UserError(
                f"{self.folder} holds {len(shards)} shards that were drawn with {different}; finish them with those "
                "settings, choose another out=..., or remove that folder"
            )
        if not there or different:
            self._say(settings, [maker])
        elif first and maker not in there["made_by"]:
            self._say(settings, [*there["made_by"], maker])

    def made_by(self) -> list[dict[str, Any]]:
        """All that drew a part, without doubles."""
        return self._settings()["made_by"]

    def _settings(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / SETTINGS).read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(f"{self.folder / SETTINGS} is not readable ({error}); remove that folder") from error

    def _say(self, settings: dict[str, Any], made_by: list[dict[str, Any]]) -> None:
        write_text(self.folder / SETTINGS, json.dumps({"settings": settings, "made_by": made_by}, indent=2))

    def _files(self) -> list[Path]:
        return [*self.folder.glob("[0-9]*.npy")]

    def is_whole(self, k: int) -> bool:
        if k not in self.whole:
            rows = self.rows(k)
            try:
                found = np.load(self.path(k), mmap_mode="r")  # which refuses a file that is too short
            except (OSError, ValueError, EOFError):
                return False
            if found.dtype != np.uint8 or found.shape != (rows.stop - rows.start, *self.shape):
                return False
            self.whole.add(k)
        return True

    def done(self) -> int:
        """Images in whole shards, whoever drew them."""
        for file in self._files():
            if file.stem.isdecimal() and int(file.stem) < len(self):
                self.is_whole(int(file.stem))
        missing = len(self) * self.size - self.n if len(self) - 1 in self.whole else 0  # from the last one
        return len(self.whole) * self.size - missing

    def write(self, k: int, images: UInt8[np.ndarray, "n H W C"]) -> None:
        with replacing(self.path(k)) as temporary:
            np.save(temporary, images)

    def wait(self, report: Callable[[int, int], None]) -> None:
        """Until all shards are there, however long the other processes take."""
        while (done := self.done()) < self.n:
            report(done, self.n)
            time.sleep(_POLL)
        report(self.n, self.n)

    @contextmanager
    def gathered(self) -> Iterator[tuple[Path, UInt8[np.ndarray, "N H W C"], str]]:
        """All images as one file, as an array mapped from it, and the sha256 of their bytes."""
        whole, digest = self.folder / "all.npy", hashlib.sha256()
        with replacing(whole) as temporary:
            images = np.lib.format.open_memmap(temporary, "w+", np.uint8, (self.n, *self.shape))
            for k in range(len(self)):
                images[self.rows(k)] = shard = np.load(self.path(k))
                digest.update(shard.tobytes())
            images.flush()
            del images
        yield whole, np.load(whole, mmap_mode="r"), digest.hexdigest()

    def remove(self) -> None:
        """At once, as another process sees it."""
        gone = self.folder.with_name(".shards")
        shutil.rmtree(gone, ignore_errors=True)
        self.folder.replace(gone)
        shutil.rmtree(gone)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words: 'sampler.steps=18 (now 35)'; empty where both are equal."""
    old, new = dict(_flat(there)), dict(_flat(here))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    said = [f"{key}={_short(old.get(key))} (now {_short(new.get(key))})" for key in changed[:_NAMED]]
    more = [f"{len(changed) - _NAMED} more"] if len(changed) > _NAMED else []
    return ", ".join(said + more)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

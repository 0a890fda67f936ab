"""An array on its way to the disk, which a killed process leaves in such a state that the next one goes on from there.

    images.npy, labels.npy   grow from the front
    state.json               how many images are surely on the disk: written anew whenever another shard of them is

What stands behind that many images is cut off, so a torn shard is decoded again.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from lorafusion.errors import UserError
from lorafusion.files import write_text

SHARD = 1 << 26  # bytes of images
STATE = "state.json"
_READ = 1 << 22  # bytes


@dataclass
class State:
    """done: images on the disk. size, name: (width, height) and name of the first one's file."""

    done: int = 0
    size: list[int] | None = None
    name: str = ""


@dataclass
class Partial:
    """folder: where it grows. shape: (N, C, R, R) when it is whole. Raises OSError where it cannot be written."""

    folder: Path
    shape: tuple[int, int, int, int]
    state: State = field(default_factory=State)

    def __post_init__(self):
        self.each = int(np.prod(self.shape[1:]))  # bytes
        self.state = self._found()
        if self.state.done == 0:
            self.folder.mkdir(exist_ok=True)
        self.images = _grown(self.folder / "images.npy", "|u1", self.shape, self.each, self.state.done)
        self.labels = _grown(self.folder / "labels.npy", "<i8", self.shape[:1], 8, self.state.done)
        self.done, self._digest = self.state.done, hashlib.sha256()
        self._read(self.images, self.done * self.each)

    def append(self, pixels: UInt8[np.ndarray, "C R R"], label: int, size: tuple[int, int], name: str) -> None:
        if self.state.size is None:
            self.state.size, self.state.name = [*size], name
        if self.done == self.shape[0]:
            raise UserError(f"{name}: more images than the {self.shape[0]} announced")
        data = pixels.tobytes()
        self.images.write(data)
        self.labels.write(label.to_bytes(8, "little", signed=True))
        self._digest.update(data)
        self.done += 1
        if self.done * self.each // SHARD > self.state.done * self.each // SHARD:
            self._commit()

    def finish(self, meta: dict[str, Any]) -> None:
        """Adds meta.json with the checksum of images and labels, when all are there."""
        if self.done != self.shape[0]:
            raise UserError(f"{self.folder.stem}: {self.done} images read where {self.shape[0]} were announced")
        self._commit()
        self._read(self.labels, self.done * 8)
        meta = {**meta, "count": self.done, "sha256": self._digest.hexdigest()}
        write_text(self.folder / "meta.json", json.dumps(meta, indent=1))

    def close(self) -> None:
        self.images.close()
        self.labels.close()

    def _commit(self) -> None:
        for file in (self.images, self.labels):
            file.flush()
            os.fsync(file.fileno())
        self.state.done = self.done
        write_text(self.folder / STATE, json.dumps(vars(self.state)))

    def _found(self) -> State:
        """As the last process left it; nothing where that cannot be relied on."""
        try:
            state = State(**json.loads((self.folder / STATE).read_text()))
            sizes = ((self.folder / f"{n}.npy").stat().st_size for n in ("images", "labels"))
            enough = all(s >= state.done * e for s, e in zip(sizes, (self.each, 8), strict=True))
            return state if enough and 0 <= state.done <= self.shape[0] else State()
        except (OSError, ValueError, TypeError):
            return State()

    def _read(self, file: BinaryIO, size: int) -> None:
        """Takes the last ``size`` bytes of a file into the checksum."""
        file.seek(-size, os.SEEK_END)
        while block := file.read(_READ):
            self._digest.update(block)


def _grown(path: Path, descr: str, shape: tuple[int, ...], each: int, done: int) -> BinaryIO:
    """Open for writing behind the first ``done`` items."""
    file = path.open("r+b" if done else "w+b")
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    file.truncate(file.tell() + done * each)
    file.seek(0, os.SEEK_END)
    return file

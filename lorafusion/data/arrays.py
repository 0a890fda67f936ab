"""Images in one .npz file: `images` uint8 (N, H, W) or (N, H, W, C) and, if there are any, `labels` (N,).

As task=sample writes them; `arr_0` and `arr_1`, as ADM's samples have, mean the same. Images are read one at a time.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Int64

from lorafusion.data.source import Record
from lorafusion.errors import UserError

IMAGES, LABELS = ("images", "arr_0"), ("labels", "label", "arr_1")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Arrays:
    """path: the .npz file. Raises UserError, when first used, where it is none."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def fingerprint(self, split: str) -> str:
        with self._open() as archive:
            stamps = [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]
        return hashlib.sha256(repr(stamps).encode()).hexdigest()

    def count(self, split: str) -> int:
        return self.shape[0]

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        n, *shape = self.shape
        each, labels = int(np.prod(shape)), self.labels
        with self._open() as archive, self._array(archive, IMAGES) as file:
            _header(file)
            file.seek(start * each, 1)
            for k in range(start, n):
                pixels = np.frombuffer(_whole(file, each), np.uint8).reshape(shape)
                yield Record(pixels[..., 0] if shape[2:] == [1] else pixels, int(labels[k]), f"{self.path}: image {k}")

    @cached_property
    def shape(self) -> tuple[int, ...]:
        with self._open() as archive, self._array(archive, IMAGES) as file:
            shape, fortran, dtype = _header(file)
        if dtype != np.uint8 or fortran or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
            raise UserError(f"{self.path}: images are {dtype} {shape}; uint8 (N, H, W) or (N, H, W, 3) is wanted")
        return shape

    @cached_property
    def labels(self) -> Int64[np.ndarray, "N"]:
        n = self.shape[0]
        with self._open() as archive:
            if not any(f"{name}.npy" in archive.namelist() for name in LABELS):
                return np.full(n, -1)
            with self._array(archive, LABELS) as file:
                shape, _, dtype = _header(file)
                if shape != (n,) or dtype.kind not in "iu":
                    raise UserError(f"{self.path}: labels are {dtype} {shape}; whole numbers ({n},) are wanted")
                return np.frombuffer(_whole(file, n * dtype.itemsize), dtype).astype(np.int64)

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        """Failures of reading, as one line that names the file."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise UserError(f"{self.path}: not a readable npz file ({error})") from error

    @contextmanager
    def _array(self, archive: zipfile.ZipFile, names: tuple[str, ...]) -> Iterator[IO[bytes]]:
        there = archive.namelist()
        name = next((f"{name}.npy" for name in names if f"{name}.npy" in there), None)
        if name is None:
            raise UserError(f"{self.path}: no array {' or '.join(names)}; it has {', '.join(there)}")
        with archive.open(name) as file:
            yield file


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)  # pyright: ignore[reportArgumentType]
    if version not in _HEADERS:
        raise ValueError(f"npy version {version}")
    return _HEADERS[version](file)


def _whole(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it was cut short")
    return data

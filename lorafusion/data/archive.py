"""A folder or a zip file as the same thing: names of files, and their bytes.

A zip file comes from elsewhere, so its directory is checked whole when it is opened, before anything is unpacked. No
entry is ever written to the disk, and no open file is kept: a zip file read by two processes at once gives nonsense.
A file costs its name and at most 40 bytes of memory, for there may be millions.
"""

import os
import re
import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from lorafusion.data.zip_directory import DEFLATED, STORED, BadZip, Entry, entries, unpacked
from lorafusion.errors import UserError

MAX_FILE = 1 << 28  # bytes unpacked, of one file
_MAX_RATIOS = ((1 << 20, 100), (1 << 23, 10))  # what unpacks to more than so much may do so to so many times its size
_DEPTH = 8  # folders in folders
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
_SKIPPED = re.compile(r"(^|/)(\.|__MACOSX/)")  # hidden files, and what macOS adds to a zip file


class Archive(Protocol):
    """path:    of the folder or zip file.
    names:   of the files in it, relative, with "/", in sorted order.
    stamps:  of each its size in bytes, and a number that changes when the file does.
    """

    path: Path
    names: list[str]
    stamps: Int64[np.ndarray, "N 2"]

    def read(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Contents of the files with these numbers. Raises UserError naming the file that cannot be read."""
        ...


def open_archive(path: Path) -> Archive:
    """Raises UserError where ``path`` is neither a folder nor a sound zip file."""
    if path.is_dir():
        return FolderArchive(path)
    if not path.exists():
        raise UserError(f"data.path={path}: no such folder or zip file")
    return ZipArchive(path)


def find(names: list[str], name: str) -> int | None:
    """The number of ``name`` among sorted names."""
    k = bisect_left(names, name)
    return k if k < len(names) and names[k] == name else None


class FolderArchive:
    """All files below ``path``; stamped with size and time of change, which are read without opening the files."""

    def __init__(self, path: Path):
        self.path = path
        self.names, self.stamps = _listing(_walk(path, "", _DEPTH), 2)

    def read(self, numbers: Iterable[int]) -> Iterator[bytes]:
        for k in numbers:
            file = self.path / self.names[k]
            try:
                yield file.read_bytes()
            except OSError as error:
                raise UserError(f"{file}: cannot be read ({error.strerror})") from error


class ZipArchive:
    """All files in a zip file; stamped with size and checksum (CRC-32), as the zip file's directory has them."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.names, self._info = _listing(self._sound(), 5)
        except (BadZip, OSError) as error:
            raise UserError(f"{path}: not a whole zip file ({error})") from error
        self.stamps = self._info[:, :2]
        if twice := next((a for a, b in pairwise(self.names) if a == b), None):
            raise UserError(f"{path}: entry {twice!r} is there twice: refused")

    def _sound(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for entry in entries(self.path):
            if reason := _refusal(entry):
                raise UserError(f"{self.path}: entry {entry.name!r} {reason}: refused")
            if not entry.name.endswith("/") and not _SKIPPED.search(entry.name):
                yield entry.name, (entry.size, entry.crc, entry.offset, entry.packed, entry.method)

    def read(self, numbers: Iterable[int]) -> Iterator[bytes]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read any more ({error.strerror})") from error
        with file:
            for k in numbers:
                try:
                    yield unpacked(file, self.names[k], *self._info[k].tolist())
                except (BadZip, OSError) as error:
                    raise UserError(f"{self.path}: entry {self.names[k]!r} cannot be read ({error})") from error


def _listing(files: Iterable[tuple[str, tuple[int, ...]]], width: int) -> tuple[list[str], Int64[np.ndarray, "N W"]]:
    """Sorted by name: the names, and the ``width`` numbers of each."""
    names, numbers = [], array("q")
    for name, info in files:
        names.append(name)
        numbers.extend(info)
    info = np.frombuffer(numbers, np.int64).reshape(-1, width) if names else np.empty((0, width), np.int64)
    if any(a > b for a, b in pairwise(names)):
        order = sorted(range(len(names)), key=names.__getitem__)
        names, info = [names[k] for k in order], info[order]
    return names, info


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, tuple[int, int]]]:
    if depth == 0:
        raise UserError(f"{folder}: folders lie more than {_DEPTH} deep; does a link point to a folder above it?")
    try:
        with os.scandir(folder) as found:
            for entry in found:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _walk(folder / entry.name, name + "/", depth - 1)
                elif entry.is_file():
                    info = entry.stat()
                    if info.st_size > MAX_FILE:
                        raise UserError(f"{folder / entry.name}: larger than {MAX_FILE >> 20} MiB: refused")
                    yield name, (info.st_size, info.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _refusal(entry: Entry) -> str | None:
    if _OUTSIDE.match(entry.name):
        return "points outside"
    if "\0" in entry.name:
        return "has a broken name"
    if stat.S_ISLNK(entry.mode):
        return "is a symbolic link"
    if entry.encrypted:
        return "is encrypted"
    if entry.method not in (STORED, DEFLATED):
        return f"is compressed by method {entry.method}; only stored and deflated entries are read"
    if entry.size > MAX_FILE:
        return f"would unpack to more than {MAX_FILE >> 20} MiB"
    for small, ratio in _MAX_RATIOS if entry.size > entry.packed else ():
        if entry.size > max(small, ratio * entry.packed):
            return f"would unpack to more than {ratio} times its size"
    return None

"""A folder or a zip file as the same thing: names of files, and their bytes.

A zip file comes from elsewhere, so its directory is checked whole when it is opened, before anything is unpacked. No
entry is ever written to the disk, and no open file is kept: a zip file read by two processes at once gives nonsense.
"""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from lorafusion.errors import UserError

MAX_FILE = 1 << 28  # bytes unpacked, of one file
_MAX_RATIO, _SMALL = 100, 1 << 20  # of a file that unpacks to more than 1 MiB; image files hardly shrink
_DEPTH = 8  # folders in folders
_SKIPPED = re.compile(r"(^|/)(\.|__MACOSX/)")  # hidden files, and what macOS adds to a zip file


class Archive(Protocol):
    """path:   of the folder or zip file.
    files:  name -> a stamp that changes when the file does; names are relative, with "/", in sorted order.
    """

    path: Path
    files: dict[str, str]

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        """Their contents, in the order asked for. Raises UserError naming the file that cannot be read."""
        ...


def open_archive(path: Path) -> Archive:
    """Raises UserError where ``path`` is neither a folder nor a sound zip file."""
    if path.is_dir():
        return FolderArchive(path)
    if not path.exists():
        raise UserError(f"data.path={path}: no such folder or zip file")
    return ZipArchive(path)


class FolderArchive:
    """All files below ``path``; a stamp is size and time of change, which are read without opening the files."""

    def __init__(self, path: Path):
        self.path = path
        self.files = dict(sorted(_walk(path, "", _DEPTH)))

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        for name in names:
            try:
                yield (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(f"{self.path / name}: cannot be read ({error.strerror})") from error


class ZipArchive:
    """All files in a zip file; a stamp is size and checksum (CRC-32), as the zip file's directory has them."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise UserError(f"{path}: not a whole zip file ({error})") from error
        self.files = {}
        for entry in sorted(entries, key=lambda entry: entry.filename):
            self._add(entry)

    def _add(self, entry: zipfile.ZipInfo) -> None:
        name = entry.orig_filename
        if reason := _refusal(entry, name) or ("is there twice" if name in self.files else None):
            raise UserError(f"{self.path}: entry {name!r} {reason}: refused")
        if not entry.is_dir() and not _SKIPPED.search(name):
            self.files[name] = f"{entry.file_size} {entry.CRC:08x}"

    def read(self, names: Iterable[str]) -> Iterator[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            for name in names:
                try:
                    yield archive.read(name)  # at most the announced size, checked against the checksum
                except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, KeyError) as error:
                    raise UserError(f"{self.path}: entry {name!r} cannot be read ({error})") from error


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth == 0:
        raise UserError(f"{folder}: folders lie more than {_DEPTH} deep; does a link point to a folder above it?")
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _walk(folder / entry.name, name + "/", depth - 1)
                elif entry.is_file():
                    info = entry.stat()
                    if info.st_size > MAX_FILE:
                        raise UserError(f"{folder / entry.name}: larger than {MAX_FILE >> 20} MiB: refused")
                    yield name, f"{info.st_size} {info.st_mtime_ns}"
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _refusal(entry: zipfile.ZipInfo, name: str) -> str | None:
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
        return "points outside"
    if "\0" in name:
        return "has a broken name"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a symbolic link"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.file_size > MAX_FILE:
        return f"would unpack to more than {MAX_FILE >> 20} MiB"
    if entry.file_size > max(_SMALL, _MAX_RATIO * entry.compress_size):
        return f"would unpack to more than {_MAX_RATIO} times its size"
    return None

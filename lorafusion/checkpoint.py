"""Checkpoint files that are whole or not there, and say so if somebody changed them.

A file is torch's own zip format followed by a line ``sha256:<hex digest of what stands before>``; torch.load and unzip
read it as they read any other. It is written under a temporary name in the same folder, flushed to the disk, then
renamed: a process killed at any moment leaves the file that was there before. (Staging in /tmp, as Lightning does,
copies across file systems and was seen to leave torn files.) Loading never runs code: weights_only.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lorafusion.errors import UserError
from lorafusion.files import sync

SUFFIX, TEMPORARY = ".ckpt", ".tmp"
_MARK = b"\nsha256:"
_TRAILER = len(_MARK) + 64 + 1
_CHUNK = 1 << 20


class _HashingWriter:
    """A binary file that hashes what passes through; append only, which is all that torch.save asks for."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` (tensors and plain containers) to ``path``, all or nothing.

    Raises UserError if the disk is full; nothing partial stays, and what was at ``path`` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            writer = _HashingWriter(file)
            torch.save(content, writer)  # pyright: ignore[reportArgumentType]  it only writes and flushes
            file.write(_MARK + writer.digest.hexdigest().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        raise UserError(
            f"checkpoint {path} could not be written: {cause or error}; the one before is untouched"
        ) from error
    sync(path.parent)


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Raises UserError naming the file if it is missing, cut short, altered, or not one of ours."""
    verify(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error


def verify(path: Path) -> None:
    """Raises UserError unless the bytes of ``path`` are those that were saved."""
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = size - _TRAILER
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        trailer = file.read()
    if trailer != _MARK + digest.hexdigest().encode() + b"\n":
        raise UserError(f"checkpoint {path} is cut short or altered: its checksum does not match")


def newest(folder: Path, warn: Any = print) -> Path | None:
    """The newest checkpoint of ``folder`` that is whole, or None. Each one refused on the way is named in one line."""
    for path in reversed(list_checkpoints(folder)):
        try:
            verify(path)
            return path
        except UserError as error:
            warn(f"{error}; taking the one before")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of ``folder``, oldest first: their names hold the images seen, zero-padded."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def remove_stale(folder: Path) -> None:
    """Remove what a killed process left under a temporary name."""
    for path in _stale(folder):
        path.unlink(missing_ok=True)


def _stale(folder: Path) -> Iterator[Path]:
    return folder.glob(f".*{TEMPORARY}")

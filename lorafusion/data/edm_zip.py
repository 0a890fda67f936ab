"""A decoded data set as one zip file in the layout of NVlabs' EDM and StyleGAN tools.

    00000/img00000000.png ...    image k, PNG without compression, grey stays grey; a folder has a thousand
    dataset.json                 {"labels": [["00000/img00000000.png", 6], ...]}, or {"labels": null}

Entries are stored, and bear the oldest date that a zip file can: the same images and labels give the same bytes. Of an
entry only its size and checksum are kept until the directory is written at the end, 12 bytes for an image.
"""

import hashlib
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from lorafusion.errors import UserError
from lorafusion.progress import Report

LIST = "dataset.json"
_VERSION, _UNIX, _DATE = 45, 3 << 8, (1 << 5) | 1  # 4.5 = ZIP64; 1 January 1980
_FILE_MODE = 0o100644 << 16
_WIDE = 0xFFFFFFFF  # the number is in the ZIP64 field
_LABELS = 4096  # listed at a time


def check(labels: Int64[np.ndarray, "N"], side: int, where: str) -> None:
    """Raises UserError for what the layout cannot hold."""
    check_side(side)
    unlabelled = int((labels < 0).sum())
    if 0 < unlabelled < len(labels):
        raise UserError(f"{where}: {unlabelled:,} of {len(labels):,} images have no label; {LIST} names all or none")


def check_side(side: int) -> None:
    """Raises UserError unless it is a power of two, as EDM's tool demands."""
    if side & (side - 1):
        down = 1 << side.bit_length() - 1
        raise UserError(f"data.resolution={side}: a zip file for EDM has a power of two, {down} or {2 * down}")


def name(k: int) -> str:
    """Of image k's entry."""
    return f"{k // 1000:05d}/img{k:08d}.png"


def write(images: UInt8[np.ndarray, "N C R R"], labels: Int64[np.ndarray, "N"], path: Path, report: Report) -> str:
    """Write all to ``path``; the file's sha256. Raises as ``check``, and OSError."""
    check(labels, images.shape[-1], str(path))
    with path.open("wb") as file:
        archive = _Zip(file)
        for k, pixels in enumerate(images):
            archive.add(name(k), [png(pixels)])
            report(k + 1, len(images))
        archive.add(LIST, _listing(labels))
        archive.close(lambda k: name(k) if k < len(images) else LIST)
    return archive.digest.hexdigest()


def png(pixels: UInt8[np.ndarray, "C R R"]) -> bytes:
    """Grey or RGB by the number of channels, not compressed; a tenth of the time that Pillow takes for one of 64 px."""
    channels, side, _ = pixels.shape
    rows = np.zeros((side, 1 + side * channels), np.uint8)  # each begins with its filter, 0 = none
    rows[:, 1:] = pixels.transpose(1, 2, 0).reshape(side, -1)
    header = struct.pack(">2L5B", side, side, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _listing(labels: Int64[np.ndarray, "N"]) -> Iterable[bytes]:
    if len(labels) and labels[0] < 0:
        return [b'{"labels": null}']
    return _Listing(labels)


class _Listing:
    """The text of dataset.json in pieces; may be gone through more than once."""

    def __init__(self, labels: Int64[np.ndarray, "N"]):
        self.labels = labels

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"labels": ['
        for start in range(0, len(self.labels), _LABELS):
            items = (f'["{name(start + k)}", {label}]' for k, label in enumerate(self.labels[start : start + _LABELS]))
            yield (", " if start else "").encode() + ", ".join(items).encode()
        yield b"]}"


class _Zip:
    """Appends stored entries to a file, and the directory. Layout: see zip_directory.py."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.at = file, hashlib.sha256(), 0
        self.sizes, self.checks = array("Q"), array("I")

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """pieces: gone through twice. An entry is smaller than 4 GiB."""
        size, check = 0, 0
        for piece in pieces:
            size, check = size + len(piece), zlib.crc32(piece, check)
        self._write(struct.pack("<4s5H3L2H", b"PK\3\4", *self._same(), check, size, size, len(name), 0) + name.encode())
        for piece in pieces:
            self._write(piece)
        self.sizes.append(size)
        self.checks.append(check)

    def close(self, name: Callable[[int], str]) -> None:
        """Write the directory; ``name`` of entry k is that which it was added by."""
        start, offset, count = self.at, 0, len(self.sizes)
        for k, (size, check) in enumerate(zip(self.sizes, self.checks, strict=True)):
            entry = name(k).encode()
            wide = struct.pack("<2HQ", 1, 8, offset) if offset >= _WIDE else b""
            fixed = (b"PK\1\2", _UNIX | _VERSION, *self._same(), check, size, size, len(entry), len(wide))
            self._write(struct.pack("<4s6H3L5H2L", *fixed, 0, 0, 0, _FILE_MODE, min(offset, _WIDE)) + entry + wide)
            offset += 30 + len(entry) + size
        size, end = self.at - start, self.at
        if count >= 0xFFFF or end >= _WIDE:
            here = (44, _VERSION, _VERSION, 0, 0, count, count, size, start)
            self._write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", *here) + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        few = min(count, 0xFFFF)
        self._write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, few, few, min(size, _WIDE), min(start, _WIDE), 0))

    def _same(self) -> tuple[int, ...]:
        """Version needed, flags, method, time, date."""
        return _VERSION, 0, 0, 0, _DATE

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.at += len(data)

"""A zip file's directory and its entries, one at a time.

Python's zipfile makes an object of several hundred bytes of every entry, and again in every process that reads; a data
set has millions of them. Here an entry is yielded and forgotten, and is read back by the numbers in its directory
record. Layout: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 (local header) to 4.3.16 (end of the directory), 4.5.3 (ZIP64).
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

STORED, DEFLATED = 0, 8
_END, _END_64, _LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_RECORD, _LOCAL = struct.Struct("<4s4B4H3L5H2L"), struct.Struct("<4s5H3L2H")
_UTF_8, _ENCRYPTED = 0x800, 1  # bits of the flags
_MASKED = 0xFFFFFFFF  # the value is in the ZIP64 field


class BadZip(ValueError):
    """Not a whole zip file, in words."""


class Entry(NamedTuple):
    """size: unpacked. packed: in the file. offset: of its local header. mode: of the file system that it came from."""

    name: str
    size: int
    crc: int
    offset: int
    packed: int
    method: int
    encrypted: bool
    mode: int


def entries(path: Path) -> Iterator[Entry]:
    """In the directory's order. Raises BadZip where the file is none or is cut short, OSError as reading does."""
    with path.open("rb") as file:
        count, size, start = _place(file)
        file.seek(start)
        for _ in range(count):
            entry, length = _entry(file)
            if entry.offset + _LOCAL.size + entry.packed > start:
                raise BadZip(f"entry {entry.name!r} reaches beyond the data")
            size -= length
            yield entry
        if size:
            raise BadZip("its directory is not as long as its end says")


def unpacked(file: BinaryIO, name: str, size: int, crc: int, offset: int, packed: int, method: int) -> bytes:
    """An entry's bytes; at most ``size`` of them are ever made. Raises BadZip where they are not what was announced."""
    file.seek(offset)
    signature, _, flags, _, _, _, _, _, _, n, extra = _unpack(_LOCAL, file)
    if signature != b"PK\3\4" or _decoded(_read(file, n), flags) != name:
        raise BadZip("its local header is not the directory's")
    file.seek(extra, 1)
    data = _read(file, packed)
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except zlib.error as error:
            raise BadZip(str(error)) from error
    if len(data) != size:
        raise BadZip(f"{size} bytes were announced")
    if zlib.crc32(data) != crc:
        raise BadZip("wrong CRC-32")
    return data


def _place(file: BinaryIO) -> tuple[int, int, int]:
    """Number of entries, bytes of the directory, where it starts."""
    length = file.seek(0, 2)
    tail_start = max(0, length - _END.size - 0xFFFF)  # behind it may stand a comment
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise BadZip("File is not a zip file, or its end is missing")
    _, _, _, _, count, size, start, comment = _END.unpack_from(tail, at)
    if len(tail) - at != _END.size + comment:
        raise BadZip("its end is damaged")
    end = tail_start + at
    if count == 0xFFFF or _MASKED in (size, start):
        count, size, start, end = _place_64(file, end) or (count, size, start, end)
    if start + size != end:
        raise BadZip("its directory is not where its end says")
    return count, size, start


def _place_64(file: BinaryIO, end: int) -> tuple[int, int, int, int] | None:
    if end < _LOCATOR_64.size:
        return None
    file.seek(end - _LOCATOR_64.size)
    signature, _, at, _ = _unpack(_LOCATOR_64, file)
    if signature != b"PK\6\7":
        return None  # exactly 65,535 entries
    file.seek(at)
    signature, _, _, _, _, _, _, count, size, start = _unpack(_END_64, file)
    if signature != b"PK\6\6":
        raise BadZip("its ZIP64 end is damaged")
    return count, size, start, at


def _entry(file: BinaryIO) -> tuple[Entry, int]:
    """And the bytes of its record."""
    fields = _unpack(_RECORD, file)
    signature, _, system, _, _, flags, method, _, _, crc, packed, size, n, m, comment, _, _, attributes, offset = fields
    if signature != b"PK\1\2":
        raise BadZip("its directory is damaged")
    rest = _read(file, n + m + comment)
    name = _decoded(rest[:n], flags)
    if _MASKED in (size, packed, offset):
        size, packed, offset = _extended((size, packed, offset), rest[n : n + m])
    mode = attributes >> 16 if system == 3 or attributes >> 16 else 0
    entry = Entry(name, size, crc, offset, packed, method, bool(flags & _ENCRYPTED), mode)
    return entry, _RECORD.size + n + m + comment


def _extended(values: tuple[int, int, int], extra: bytes) -> list[int]:
    """Those that are masked, in turn, from the ZIP64 field."""
    masked = values.count(_MASKED)
    at = 0
    while masked and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and length >= 8 * masked and at + 4 + 8 * masked <= len(extra):
            wide = iter(struct.unpack_from(f"<{masked}Q", extra, at + 4))
            return [next(wide) if value == _MASKED else value for value in values]
        at += 4 + length
    return [*values]


def _decoded(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & _UTF_8 else "cp437", "surrogateescape")


def _unpack(layout: struct.Struct, file: BinaryIO) -> tuple:
    return layout.unpack(_read(file, layout.size))


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise BadZip("it was cut short")
    return data

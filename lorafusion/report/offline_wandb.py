"""The history and the config that an offline run of Weights & Biases keeps in its .wandb file.

The file is a log in LevelDB's format after seven bytes of its own: blocks of 32 KiB, of records (checksum, length,
part, data), where a record that crosses blocks comes in parts. Each whole record is a message, read by W&B's package.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafusion.report.read import LARGEST_CSV, Column, Damaged, sorted_once

HEADER = b":W&B\xe1\xbe\x00"  # with its magic number and version
BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
NOT_MEASURED = {"nimg", "epoch", "step", "trainer/global_step"}


def read(folder: Path) -> tuple[dict[str, Column], dict[str, Any]]:
    """Of all offline runs in a run's folder, as a resumed one has several: columns over images seen, and the config.

    ({}, {}) where there is none. Raises Damaged where one cannot be read.
    """
    columns: dict[str, Column] = {}
    config: dict[str, Any] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for kind, content in _messages(file):
            if kind == "config":
                config |= content
            else:
                _add(content, columns)
    return {name: sorted_once(points) for name, points in columns.items()}, config


def _add(row: dict[str, Any], columns: dict[str, Column]) -> None:
    x = row.get("nimg")
    if not isinstance(x, int | float) or not math.isfinite(x):
        return
    for name, value in row.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in NOT_MEASURED and not name.startswith("_"):
            columns.setdefault(name, []).append((float(x), float(value)))


def _messages(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("history" or "config", key -> value) of a file, in order."""
    try:
        from google.protobuf.message import DecodeError
        from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        raise Damaged("needs the package wandb") from None
    try:
        if file.stat().st_size > LARGEST_CSV:
            raise Damaged(f"is larger than {LARGEST_CSV >> 20} MiB")
        content = file.read_bytes()
    except OSError as error:
        raise Damaged(error.strerror or "cannot be opened") from None
    for data in records(content):
        try:
            record = Record.FromString(data)
        except DecodeError:
            raise Damaged("holds what is no message of W&B's") from None
        if record.HasField("history"):
            yield "history", _values(record.history.item)
        elif record.HasField("config"):
            yield "config", _values(record.config.update)
        elif record.HasField("run"):
            yield "config", _values(record.run.config.update)


def _values(items: Any) -> dict[str, Any]:
    """Those that are numbers or settings; nested keys are pictures and the like."""
    found = {}
    for item in items:
        name = item.key or (item.nested_key[0] if len(item.nested_key) == 1 else "")
        if name and not name.startswith("_"):
            try:
                found[name] = json.loads(item.value_json)
            except (ValueError, RecursionError):
                continue
    return found


def records(content: bytes) -> Iterator[bytes]:
    """Whole records, up to the end or to where a killed process left the file torn. Raises Damaged for another file."""
    if not content.startswith(HEADER):
        raise Damaged("is no log of W&B's")
    at, parts = len(HEADER), []
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # too little room for a record's head: padding
            at += BLOCK - at % BLOCK
            continue
        checksum, length, part = struct.unpack_from("<IHB", content, at)
        data = content[at + 7 : at + 7 + length]
        if len(data) < length or zlib.crc32(data, zlib.crc32(bytes([part]))) != checksum:
            return
        at += 7 + length
        parts = [data] if part in (FULL, FIRST) else [*parts, data]
        if part in (FULL, LAST):
            yield b"".join(parts)

"""Reads what torch.save writes, in both of its formats, into plain containers and tensors.

zip (since torch 1.6):  data.pkl, and one stored record data/<key> for each storage
legacy:                 five pickles: magic number, version, system, the object, the keys; then each storage's bytes

Nothing is believed that the file says of a size: a storage has the bytes that are there, and a tensor lies within its
storage. torch.load, weights_only or not, allocates what is declared.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lorafusion.convert.safe_pickle import Budget, Find, Refused, Stream, load

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_DIRECTORY = 4 << 20  # bytes of a zip's table of contents; a network's is about 0.1 MB
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_zip(path: Path, budget: Budget, find: Find) -> Any:
    """Raises Refused, zipfile.BadZipFile and what safe_pickle.load raises."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        records = _records(archive, path.stat().st_size)
        if records.get("byteorder", b"little") != b"little":
            raise Refused("it was written on a machine of the other byte order")
        storages: dict[str, Tensor] = {}

        def persistent(pid: Any) -> Tensor:
            dtype, key, numel = _storage_id(pid)
            if key not in storages:
                storages[key] = _storage(archive.read(records[f"data/{key}"]), dtype)
            if storages[key].dtype != dtype or len(storages[key]) != numel:
                raise Refused(f"its storage {key[:40]} is not of the size that it says")
            return storages[key]

        return load(io.BytesIO(archive.read(records["data.pkl"])), budget, _with_storages(find), persistent)


def read_legacy(stream: Stream, budget: Budget, find: Find) -> Any:
    """Raises Refused and what safe_pickle.load raises."""
    magic, version, system = (load(stream, budget, _nothing) for _ in range(3))
    if magic != MAGIC or version != _VERSION or type(system) is not dict or system.get("little_endian") is not True:
        raise Refused("it is no torch file of a known version and byte order")
    storages: dict[str, Tensor] = {}

    def persistent(pid: Any) -> Tensor:
        dtype, key, numel = _storage_id(pid)
        if key not in storages:
            budget.storage(numel * dtype.itemsize)
            storages[key] = torch.empty(numel, dtype=dtype)  # filled below
        if storages[key].dtype != dtype or len(storages[key]) != numel:
            raise Refused(f"its storage {key[:40]} is of two sizes")
        return storages[key]

    content = load(stream, budget, _with_storages(find), persistent)
    keys = load(stream, budget, _nothing)
    if type(keys) is not list or sorted(keys) != sorted(storages):
        raise Refused("its list of storages is not that of its tensors")
    for key in keys:
        storage = storages[key]
        if struct.unpack("<q", stream.read(8)) != (len(storage),):
            raise Refused(f"its storage {key[:40]} is not of the size that it says")
        storage.copy_(_storage(stream.read(storage.nbytes), storage.dtype))
    return content


def storage_from_bytes(data: bytes, budget: Budget) -> Tensor:
    """What stands for torch.storage._load_from_bytes: a storage inside a plain pickle, in the legacy format."""
    if type(data) is not bytes:
        raise Refused("its storage is no bytes")
    return read_legacy(io.BytesIO(data), budget, _nothing)


def rebuild_tensor(
    storage: Tensor, offset: int, size: tuple, stride: tuple, requires_grad: bool = False, hooks: Any = None
) -> Tensor:
    """What stands for torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, Tensor) or storage.ndim != 1 or not _naturals((offset,), size, stride):
        raise Refused("it has a tensor that is none")
    if hooks:
        raise Refused("it has a tensor with hooks")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage) or (math.prod(size) and last >= len(storage)):
        raise Refused("it has a tensor that reaches beyond its storage")
    return storage.as_strided(size, stride, offset)


def rebuild_parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    """What stands for torch._utils._rebuild_parameter."""
    if not isinstance(data, Tensor) or hooks:
        raise Refused("it has a parameter with hooks, or one that is no tensor")
    return data


def _storage(data: bytes, dtype: torch.dtype) -> Tensor:
    if len(data) % dtype.itemsize:
        raise Refused("it ends in the middle of a number")
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _storage_id(pid: Any) -> tuple[torch.dtype, str, int]:
    """('storage', type, key, device, numel), in the legacy format with a view that must be None."""
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise Refused("it has a storage that is none")
    _, dtype, key, _, numel = pid[:5]
    if not isinstance(dtype, torch.dtype) or type(key) is not str or not _naturals((numel,)):
        raise Refused("it has a storage that is none")
    return dtype, key, numel


def _naturals(*groups: Any) -> bool:
    return all(
        type(group) is tuple and len(group) <= 8 and all(type(n) is int and 0 <= n < 1 << 40 for n in group)
        for group in groups
    )


def _with_storages(find: Find) -> Find:
    def found(module: str, name: str) -> Any:
        return _STORAGES[name] if module == "torch" and name in _STORAGES else find(module, name)

    return found


def _nothing(module: str, name: str) -> Callable[..., Any]:
    raise Refused(f"its pickle asks for {module}.{name}")


def _records(archive: zipfile.ZipFile, size: int) -> dict[str, Any]:
    """Entries by their names below the archive's one folder; 'byteorder' by its content. All are stored as they are."""
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries):
        raise Refused("it has two records of one name")
    if any(entry.compress_type or entry.flag_bits & 1 or entry.file_size != entry.compress_size for entry in entries):
        raise Refused("it has compressed or encrypted records, as torch never writes them")
    if sum(entry.file_size for entry in entries) > size:
        raise Refused("its records are larger than the file")
    folders = [e.filename.removesuffix("data.pkl") for e in entries if e.filename.count("/") <= 1]
    folders = [folder for folder in folders if folder.endswith("/")]
    if len(folders) != 1 or any(e.filename == f"{folders[0]}constants.pkl" for e in entries):
        raise Refused("it is a zip, but none that torch.save writes")
    records: dict[str, Any] = {entry.filename.removeprefix(folders[0]): entry for entry in entries}
    if "byteorder" in records:
        records["byteorder"] = archive.read(records["byteorder"])
    return records


def _check_directory(path: Path) -> None:
    """Refuses a zip with a huge table of contents before zipfile reads it."""
    with path.open("rb") as file:
        tail = _tail(file, 1 << 16)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise Refused("it is cut short")
    (directory,) = struct.unpack_from("<I", tail, end + 12)
    if end >= 76 and tail[end - 76 : end - 72] == b"PK\x06\x06":  # the 64-bit form stands before it
        (directory,) = struct.unpack_from("<Q", tail, end - 36)
    if directory > _MAX_DIRECTORY:
        raise Refused("its table of contents is too long for a network's")


def _tail(file: BinaryIO, n: int) -> bytes:
    file.seek(max(0, file.seek(0, io.SEEK_END) - n))
    return file.read()

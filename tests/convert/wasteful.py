"""Files made to fill the memory, to run for ever, or broken."""

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.convert.hostile import Bomb, Write, kind, text, weights
from tests.convert.pickles import save, snapshot

WASTES: dict[str, Write] = {}  # suffix and name -> writer of (path, shell command)


@kind(WASTES, "npz: a pickle inside, for torch's loader")
def _(path, command):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", pickle.dumps(Bomb(command)))


@kind(WASTES, "pkl: a persistent id")
def _(path, command):
    path.write_bytes(b"\x80\x04X" + text("storage") + b"Q.")


@kind(WASTES, "pkl: a memo of 2^31 places")
def _(path, command):
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")


@kind(WASTES, "pkl: a key that takes 2^60 steps to hash")
def _(path, command):
    path.write_bytes(b"\x80\x04})\x940" + _nested(60) + b"Ns.")


@kind(WASTES, "pkl: a set of such keys")
def _(path, command):
    path.write_bytes(b"\x80\x04\x8f()\x940" + _nested(60) + b"\x90.")


@kind(WASTES, "pkl: bytes of 2^60")
def _(path, command):
    path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.")


@kind(WASTES, "pkl: numbers whose hashes are one")
def _(path, command):
    items = (b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(50_000))
    path.write_bytes(b"\x80\x02}(" + b"".join(items) + b"u.")


@kind(WASTES, "pkl: a module inside itself")
def _(path, command):
    net = nn.Linear(2, 2)
    net._modules["again"] = net
    path.write_bytes(pickle.dumps({"ema": net}))


@kind(WASTES, "pkl: 2^60 modules")
def _(path, command):
    net = nn.Module()
    for _ in range(25):
        above = nn.Module()
        above._modules.update(a=net, b=net)
        net = above
    path.write_bytes(pickle.dumps(net))


@kind(WASTES, "pkl: ten million operations")
def _(path, command):
    path.write_bytes(b"\x80\x04" + b"N0" * 5_000_000 + b"N.")


@kind(WASTES, "pkl: one storage, copied 50,000 times")
def _(path, command):
    (data,) = (a for _, a, _ in pickletools.genops(pickle.dumps(torch.ones(100_000))) if isinstance(a, bytes))
    data = b"B" + struct.pack("<I", len(data)) + data
    named = b"ctorch.storage\n_load_from_bytes\n\x94"
    path.write_bytes(b"\x80\x04](" + named + data + b"\x85\x94" + b"h\x00h\x01R" * 50_000 + b"e.")


@kind(WASTES, "pkl: a nest 10,000 deep")
def _(path, command):
    path.write_bytes(b"\x80\x04" + b"ctraining.a\nb\n)R" * 10_000 + b"b" * 9_999 + b".")


@kind(WASTES, "pkl: cut short")
def _(path, command):
    save(path, snapshot(weights(), "pass"))
    path.write_bytes(path.read_bytes()[:-200])


@kind(WASTES, "pt: cut short")
def _(path, command):
    torch.save(weights(), path)
    path.write_bytes(path.read_bytes()[:-30])


@kind(WASTES, "pt: zeros, compressed to a thousandth")
def _(path, command):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 26))


@kind(WASTES, "pt: a tensor beyond its storage")
def _(path, command):
    _edit(path, pickle_edit=lambda data: data.replace(b"K\x02K\x02\x86", b"J\xff\xff\xff\x0fK\x02\x86"))


@kind(WASTES, "pt: a storage beyond its record")
def _(path, command):
    _edit(path, pickle_edit=lambda data: data.replace(b"K\x04tq", b"J\xff\xff\xff\x0ftq"))


@kind(WASTES, "pt: legacy, a storage beyond the file")
def _(path, command):
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"K\x04N", b"J\xff\xff\xff\x7fN"))


@kind(WASTES, "pt: a table of contents of 300,000 records")
def _(path, command):
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * 300_000, 4, 0)
    path.write_bytes(b"PK\3\4" + entry * 300_000 + end)


@kind(WASTES, "safetensors: a header of 2^62 bytes")
def _(path, command):
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


@kind(WASTES, "safetensors: a header of 15 MB")
def _(path, command):
    path.write_bytes(struct.pack("<Q", 15 << 20) + b'{"a":' + b"[" * (15 << 20))


@kind(WASTES, "safetensors: a tensor beyond the file")
def _(path, command):
    _safetensors(path, {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})


@kind(WASTES, "safetensors: a name of two lines")
def _(path, command):
    _safetensors(path, {"a\n\x1b[31mb": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})


@kind(WASTES, "safetensors: noise")
def _(path, command):
    path.write_bytes(np.random.default_rng(0).bytes(10_000))


@kind(WASTES, "safetensors: empty")
def _(path, command):
    path.write_bytes(b"")


def _nested(depth: int) -> bytes:
    """From the memoised top of the stack: t = (t, t), so many times."""
    return b"0".join(b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86\x94" for k in range(depth))


def _edit(path: Path, pickle_edit: Callable[[bytes], bytes]) -> None:
    """A torch file with another data.pkl; fails if the edit finds nothing."""
    whole = io.BytesIO()
    torch.save(weights(), whole)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(path, "w") as write:
        for entry in read.infolist():
            data = read.read(entry)
            if entry.filename.endswith("data.pkl"):
                data, before = pickle_edit(data), data
                assert data != before
            write.writestr(entry.filename, data)


def _safetensors(path: Path, header: dict) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))

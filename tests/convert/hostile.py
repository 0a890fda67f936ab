"""Files made to run code when a network is read from them."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.convert.pickles import save, snapshot

Write = Callable[[Path, str], Any]
RUNS_CODE: dict[str, Write] = {}  # suffix and name -> writer of (path, shell command); a careless reader runs it


class Bomb:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Hooked:
    def __init__(self, hook: Bomb):
        self.hook = hook

    def __reduce__(self):
        return torch._utils._rebuild_parameter, (torch.ones(1), False, {0: self.hook})


def kind(table: dict[str, Write], name: str) -> Callable[[Write], Write]:
    def note(write: Write) -> Write:
        table[name] = write
        return write

    return note


def weights() -> dict[str, torch.Tensor]:
    return {"model.map_layer0.weight": torch.ones(2, 2)}


@kind(RUNS_CODE, "pkl: calls os.system")
def _(path, command):
    path.write_bytes(pickle.dumps(Bomb(command)))


@kind(RUNS_CODE, "pkl: protocol 0")
def _(path, command):
    path.write_bytes(pickle.dumps(Bomb(command), 0))


@kind(RUNS_CODE, "pkl: evaluates an expression")
def _(path, command):
    path.write_bytes(b"\x80\x02cbuiltins\neval\nX" + text(f"__import__('os').system({command!r})") + b"\x85R.")


@kind(RUNS_CODE, "pkl: a dotted name below a trusted module")
def _(path, command):
    named = b"X" + text("torch.serialization") + b"X" + text("os.system") + b"\x93"
    path.write_bytes(b"\x80\x04" + named + b"X" + text(command) + b"\x85R.")


@kind(RUNS_CODE, "pkl: in a network, as a parameter")
def _(path, command):
    content = snapshot(weights(), "pass")
    content["ema"]._parameters["bomb"] = Bomb(command)
    save(path, content)


@kind(RUNS_CODE, "pkl: beside a network")
def _(path, command):
    save(path, {**snapshot(weights(), "pass"), "dataset_kwargs": Bomb(command)})


@kind(RUNS_CODE, "pkl: after the parts that are read")
def _(path, command):
    save(path, [snapshot(weights(), "pass"), Bomb(command)])


@kind(RUNS_CODE, "pkl: in the bytes of a storage")
def _(path, command):
    inner = io.BytesIO()
    torch.save(Bomb(command), inner, _use_new_zipfile_serialization=False)
    call = b"\x80\x04ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(inner.getvalue()))
    path.write_bytes(call + inner.getvalue() + b"\x85R.")


@kind(RUNS_CODE, "pkl: as a hook of a parameter")
def _(path, command):
    content = snapshot(weights(), "pass")
    content["ema"]._parameters["hooked"] = Hooked(Bomb(command))
    save(path, content)


@kind(RUNS_CODE, "pkl: the old operation INST")
def _(path, command):
    path.write_bytes(b"\x80\x02(X" + text(command) + b"ios\nsystem\n.")


@kind(RUNS_CODE, "pkl: the old operation OBJ")
def _(path, command):
    path.write_bytes(b"\x80\x02(cos\nsystem\nX" + text(command) + b"o.")


@kind(RUNS_CODE, "pt: zip")
def _(path, command):
    torch.save({"a": torch.ones(2), "b": Bomb(command)}, path)


@kind(RUNS_CODE, "pt: legacy")
def _(path, command):
    torch.save({"a": torch.ones(2), "b": Bomb(command)}, path, _use_new_zipfile_serialization=False)


@kind(RUNS_CODE, "ckpt: with our fields")
def _(path, command):
    torch.save({"state_dict": {"net.a": torch.ones(2)}, "images_seen": 1, "loops": Bomb(command)}, path)


@kind(RUNS_CODE, "ckpt: the .metadata of a distributed checkpoint")
def _(path, command):
    path.write_bytes(pickle.dumps({"state_dict_metadata": {}, "planner_data": Bomb(command)}))


@kind(RUNS_CODE, "npz: an array of objects")
def _(path, command):
    with path.open("wb") as file:
        np.savez(file, weights=np.array([Bomb(command)], dtype=object))


def text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()

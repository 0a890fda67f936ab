"""Weights from a file, whatever its format, recognised by content: plain {name: tensor}. Nothing in it is executed.

pickle        networks of NVlabs' EDM and of the paper's EDM with LoRA: {'ema': network, ...}
torch         OpenAI's improved-diffusion: a state dict; our checkpoints: {'state_dict', 'ema', 'images_seen', ...}
safetensors   ours (task=convert), or anybody's
"""

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from lorafusion.convert.network_pickle import finder, named_tensors
from lorafusion.convert.safe_pickle import Budget, Inert, Refused, load
from lorafusion.convert.torch_file import MAGIC, read_legacy, read_zip
from lorafusion.errors import UserError

_MAX_HEADER = 4 << 20  # bytes of a safetensors header; a network's is about 0.1 MB
_LEGACY = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."


@dataclass(frozen=True)
class Weights:
    """tensors: by the names of the file, without the prefix of a wrapper. kind: what the file is, for messages.
    images_seen: of a checkpoint of ours."""

    tensors: dict[str, Tensor]
    kind: str
    images_seen: int | None = None


def read(path: Path, *, ema: bool = True) -> Weights:
    """ema: of a checkpoint of ours, its averages where it has some.

    Raises UserError, one line that names the file, for what is missing, broken, hostile or of another format.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file")
    try:
        weights = _safetensors(path) if _is_safetensors(path) else _of_content(_content(path), ema)
        _check(weights, path.stat().st_size)
    except Exception as error:  # a broken file breaks in many ways, and no way is the fault of what runs here
        said = f"{error}" if isinstance(error, Refused) else f"it is broken ({type(error).__name__}: {error})"
        raise UserError(f"weights {path} are refused: {_one_line(said)}") from None
    return weights


def _content(path: Path) -> Any:
    budget = Budget(path.stat().st_size)
    find = finder(budget)
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
        if start.startswith(b"PK\x03\x04"):
            return read_zip(path, budget, find)
        if not start.startswith(b"\x80"):
            raise Refused("it is no pickle of a network, no torch file and no safetensors")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:  # its read() allocates what is there
            return read_legacy(stream, budget, find) if start == _LEGACY else load(stream, budget, find)


def _of_content(content: Any, ema: bool) -> Weights:
    if type(content) is Inert:
        return Weights(named_tensors(content), "a pickled network")
    if type(content) is not dict:
        raise Refused("it holds no network and no state dict")
    for key in ("ema", "net"):
        if type(content.get(key)) is Inert:
            return Weights(named_tensors(content[key]), f"a pickled network ({key})")
    if "state_dict" in content and "images_seen" in content:
        averages = content.get("ema") if ema else None
        tensors = {**_dict(content["state_dict"]), **_dict(averages or {})}
        tensors = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
        return Weights(tensors, f"our checkpoint ({'ema' if averages else 'raw'})", int(content["images_seen"]))
    state = _dict(content.get("state_dict", content))
    if all(name.startswith("module.") for name in state):  # a network wrapped for several devices
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return Weights(state, "a state dict")


def _dict(value: Any) -> dict[str, Any]:
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise Refused("it holds no network and no state dict")
    return value


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start[3:] == b"\0\0\0\0\0{"  # the header's length, below 2^24, and the header


def _safetensors(path: Path) -> Weights:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    if length > min(_MAX_HEADER, path.stat().st_size - 8):
        raise Refused("its header is longer than the file, or than a network's")
    with safe_open(path, "pt") as file:
        return Weights({name: file.get_tensor(name) for name in file.keys()}, "safetensors")  # noqa: SIM118


def _check(weights: Weights, size: int) -> None:
    if not weights.tensors:
        raise Refused("it holds no tensor")
    for name, value in weights.tensors.items():
        if not re.fullmatch(r"[\w.-]{1,300}", name):
            raise Refused(f"it names a tensor {name[:60]!r}")
        if not isinstance(value, Tensor):
            raise Refused(f"its {name[:80]} is no tensor")
    if sum(value.nbytes for value in weights.tensors.values()) > 4 * size:  # many views of few bytes
        raise Refused("its tensors are larger than the file")


def _one_line(said: str) -> str:
    said = " ".join(said.split())
    return "".join(c if c.isprintable() else "?" for c in said)[:300]

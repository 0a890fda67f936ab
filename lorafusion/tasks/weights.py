"""Weights from a file of any known format into a network of ours: a checkpoint, an export, or an original's."""

import hashlib
import json
from pathlib import Path

from torch import nn

from lorafusion import checkpoint
from lorafusion.convert.fill import fill
from lorafusion.convert.formats import Weights, read
from lorafusion.errors import UserError
from lorafusion.tasks import run_folder

_MAX_RECORD = 1 << 20  # bytes; ours have a few thousand


def find(file: str) -> Path:
    """The file itself, or the newest good checkpoint of a run's folder."""
    return run_folder.find_checkpoint(file)


def read_verified(path: Path, *, ema: bool = True) -> Weights:
    """``convert.formats.read``, after the checksum of a file of ours.

    Raises UserError for a checkpoint, or an export beside its JSON, whose bytes are not those that were written.
    """
    if path.suffix == checkpoint.SUFFIX:
        checkpoint.verify(path)
    expected = export_record(path).get("sha256")
    if expected is not None and path.is_file() and sha256(path) != expected:
        raise UserError(f"{path} is altered: its checksum is not that of {path.with_suffix('.json').name}")
    return read(path, ema=ema)


def start_from(net: nn.Module, file: str, *, ema: bool = True) -> str:
    """Fill ``net`` before it is trained; what its conditioning adds to a base keeps its init. Returns what was done.

    Raises UserError where the file's network is another one.
    """
    path = find(file)
    weights = read_verified(path, ema=ema)
    fresh = fill(net, weights.tensors, source=str(path), base=True)
    state = net.state_dict()
    numbers = sum(state[key].numel() for key in fresh)
    new = f"; {len(fresh)} more ({numbers:,} numbers) are new and keep their init" if fresh else ""
    return f"{len(state) - len(fresh)} tensors of the network from {path} ({weights.kind}){new}"


def export_record(path: Path) -> dict:
    """The JSON beside an export; {} where there is none."""
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not beside.is_file() or beside.stat().st_size > _MAX_RECORD:
        return {}
    try:
        record = json.loads(beside.read_text())
    except (ValueError, OSError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Weights from a file of any known format into a network of ours: a checkpoint, an export, or an original's.

An export is two files: name.safetensors, and name.json, which says what rebuilds the denoiser and how it samples.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from lorafusion import checkpoint
from lorafusion.convert.fill import fill
from lorafusion.convert.formats import Weights, read
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError

EXPORT = ".safetensors"
PARTS = ("denoiser", "backbone", "conditioning", "process")  # what rebuilds a denoiser; the first lacks the others

_MAX_RECORD = 1 << 20  # bytes; ours have a few thousand


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


def start_from(net: nn.Module, path: Path, *, ema: bool = True) -> str:
    """Fill ``net`` before it is trained; what its conditioning adds to a base keeps its init. Returns what was done.

    Raises UserError where the file's network is another one.
    """
    weights = read_verified(path, ema=ema)
    fresh = fill(net, weights.tensors, source=str(path), base=True)
    state = net.state_dict()
    numbers = sum(state[key].numel() for key in fresh)
    new = f"; {len(fresh)} more ({numbers:,} numbers) are new and keep their init" if fresh else ""
    return f"{len(state) - len(fresh)} tensors of the network from {path} ({weights.kind}){new}"


def export_config(path: Path) -> dict[str, Any]:
    """What a run's config says, as far as an export beside its JSON does: denoiser, sampler, data, name, images_seen.

    Raises UserError where the JSON is missing, or says less.
    """
    file, record = path.with_suffix(".json"), export_record(path)
    again = f"`python run.py task=convert file=... out={path}` writes it"
    if not file.is_file():
        raise UserError(f"export {path}: {file.name}, which says what network it is, is not beside it; {again}")
    wanted = (*PARTS, "sampler", "data", "sha256")
    if lacking := [part for part in wanted if not isinstance(record.get(part), str if part == "sha256" else dict)]:
        raise UserError(f"export {path}: {file.name} does not say its {', '.join(lacking)}; today's {again}")
    denoiser, backbone, conditioning, process = (record[part] for part in PARTS)
    whole = {**denoiser, "net": backbone, "conditioning": conditioning, "process": process}
    return {**{key: record.get(key) for key in ("name", "images_seen", "sampler", "data")}, "denoiser": whole}


def export_record(path: Path) -> dict[str, Any]:
    """The JSON beside an export; {} where there is none."""
    beside = path.with_suffix(".json")
    if path.suffix != EXPORT or not beside.is_file() or beside.stat().st_size > _MAX_RECORD:
        return {}
    try:
        record = json.loads(beside.read_text())
    except (ValueError, OSError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def described(path: Path, denoiser: Denoiser, *, ema: bool) -> dict[str, Any]:
    """The checkpoint or export that weights are of, for the record of what is measured."""
    return {"file": path.name, "sha256": sha256(path), "images_seen": denoiser.images_seen, "ema": ema}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

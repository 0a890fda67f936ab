"""An adapter as one safetensors file: its own tensors, and in the metadata what rebuilds it. Nothing in it is run."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lorafusion.errors import UserError
from lorafusion.files import replacing

_KEY, _FORMAT = "lorafusion.adapter", 1


def save(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Whole or not at all. Raises UserError where it cannot be written."""
    try:
        with replacing(path) as temporary:
            content = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
            save_file(content, temporary, metadata={_KEY: json.dumps({"format": _FORMAT, **config})})
    except (OSError, SafetensorError) as error:
        raise UserError(f"adapter {path} could not be written: {error}") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises UserError naming a file that is no adapter of ours."""
    try:
        with safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get(_KEY)
            if metadata is None:
                raise UserError(f"{path} is no adapter: it has no {_KEY} in its metadata")
            config = json.loads(metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise UserError(f"adapter {path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, dict) or config.pop("format", None) != _FORMAT:
        raise UserError(f"adapter {path} is of a format that this version does not know")
    return tensors, config

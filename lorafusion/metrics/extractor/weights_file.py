"""The file of a network's weights: where it is looked for, and how it is read without running what is in it."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from lorafusion.errors import UserError


def find(given: str | None, name: str, url: str) -> Path:
    """``given``, else the file of this name where torch.hub keeps downloads. Raises UserError: what to fetch, whereto.

    Nothing is ever downloaded.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"metric.weights={given}: there is no such file")
        return path
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise UserError(f"metric.weights: {path} is missing; fetch {url} and put it there, or give metric.weights=FILE")
    return path


def read(path: Path) -> dict[str, Tensor]:
    """Tensors by name; those of a checkpoint's `state_dict` where it has one. Raises UserError for another file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes torch raise
        raise UserError(f"metric.weights={path}: no file of weights: {' '.join(str(error).split())[:150]}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"metric.weights={path}: no file of weights: it should hold tensors by their names")
    return content


def fill(net: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Raises UserError where they are another network's."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"metric.weights={path} does not fit {type(net).__name__}: {reason}") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(net: nn.Module) -> str:
    """Of a network's weights as they are, without a file."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

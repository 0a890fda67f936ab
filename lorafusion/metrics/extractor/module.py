"""A network of your own: any importable module class, and a file of its weights."""

from importlib import import_module
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from lorafusion.errors import UserError
from lorafusion.metrics.extractor import weights_file
from lorafusion.metrics.features import Extracted


class Module:
    """Called with images (B, C, R, R), float32 in [-1, 1], it returns features (B, D), or (features, logits (B, K)).

    module:       its class, as package.file.Class.
    weights:      a file of its state_dict; null = as it is made, for a network that loads its own.
    arguments:    what the class is called with.
    name:         of the distances; another network is another distance.
    resize:       how it brings images to its own size, for the record.
    num_classes:  of its logits, where they are the data's classes; null = they are none.
    block:        images at once; the last bits of the features depend on it.
    """

    def __init__(
        self,
        module: str | None,
        weights: str | None = None,
        arguments: dict[str, Any] | None = None,
        name: str = "module",
        resize: str = "none",
        num_classes: int | None = None,
        block: int = 64,
    ):
        self.module, self.weights, self.arguments = module, weights, arguments or {}
        self.name, self.resize, self.num_classes, self.block = name, resize, num_classes, block

    def load(self, device: torch.device) -> None:
        net = _class(self.module)(**self.arguments)
        if self.weights is not None:
            path = weights_file.find(self.weights, "", "")
            weights_file.fill(net, weights_file.read(path), path)
            self.weights_sha256 = weights_file.sha256(path)
        else:
            self.weights_sha256 = weights_file.sha256_of(net)
        self.net = net.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Extracted:
        found = self.net(images.float() / 127.5 - 1)
        return Extracted(*found) if isinstance(found, tuple) else Extracted(found)


def _class(path: str | None) -> type[nn.Module]:
    where = f"metric.extractor.module={path}"
    package, _, name = (path or "").rpartition(".")
    if not package:
        raise UserError(f"{where}: should be a class of yours that can be imported, package.file.Class")
    try:
        found = getattr(import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{where}: cannot be imported ({error}); is its folder on PYTHONPATH?") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"{where}: is no subclass of torch.nn.Module")
    return found

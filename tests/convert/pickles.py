"""Writes network pickles as NVlabs' EDM does, with classes of our own that pickle under its names."""

import pickle
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = {"enc": nn.ModuleDict, "dec": nn.ModuleDict, "comp_weights": nn.Sequential}  # the others are persistent


class EasyDict(dict):
    __module__ = "dnnlib.util"


class Persistent(nn.Module):
    """An object of a class whose source travels with it."""

    def __init__(self, class_name: str, source: str):
        super().__init__()
        self.named, self.source = class_name, source
        # what the original keeps of a constructor's arguments
        self._init_args = ()
        self._init_kwargs = EasyDict(init_mode="xavier_uniform", skip_scale=np.sqrt(0.5), eps=1e-6, heads=[1, None])

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.named}
        return _reconstruct_persistent_obj, ({**meta, "state": self.__dict__},)


def _reconstruct_persistent_obj(meta: dict) -> Any:
    """The original's compiles meta["module_src"]."""
    return meta


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def network(weights: dict[str, Tensor], source: str, filters: tuple[str, ...] = ()) -> nn.Module:
    """weights: by the original's names. filters: modules that also have a resampling filter, as a buffer."""
    root = Persistent("EDMPrecond", source)
    for name, value in weights.items():
        *path, leaf = name.split(".")
        module = _descend(root, path, source)
        module.register_parameter(leaf, nn.Parameter(value.clone(), requires_grad=False))
    for path in filters:
        _descend(root, path.split("."), source).register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))
    return root


def _descend(module: nn.Module, path: list[str], source: str) -> nn.Module:
    plain = False
    for name in path:
        plain = plain or name == "comp_weights"
        if name not in module._modules:
            kind = _PLAIN.get(name) or (nn.Module if plain else None)
            module.add_module(name, kind() if kind else Persistent("Layer", source))
        module = module._modules[name]
    return module


@contextmanager
def their_modules():
    """The modules that pickle looks for while it writes."""
    made = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}
    made["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    made["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def save(path: Path, content: Any, protocol: int = 4) -> Path:
    with their_modules():
        path.write_bytes(pickle.dumps(content, protocol))
    return path


def snapshot(weights: dict[str, Tensor], source: str, filters: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a network-snapshot-*.pkl holds."""
    extra = {name: Persistent(name, source) for name in ("loss_fn", "augment_pipe")}
    return {"ema": network(weights, source, filters), **extra, "dataset_kwargs": EasyDict(path="data.zip", xflip=True)}

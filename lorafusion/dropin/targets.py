"""Which layers get updates: names of known models' attention layers, and how a choice is looked up."""

import re
from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from lorafusion.dropin.host import HOSTS, Dense, Host

WRAPPED = ".base_layer"  # PEFT calls the layer that it wraps so
_ADDED = re.compile(r"(^|\.)adapters\.\w+\.(updates|embedding)\.")

Targets = str | Callable[[str, nn.Module], bool]

SELF_ATTENTION = r"(attentions\.\d+|attn1)\.(to_q|to_k|to_v|to_out\.0)$"  # diffusers U-Nets, and attn1 of DiT's blocks
CROSS_ATTENTION = r"attn2\.(to_q|to_k|to_v|to_out\.0)$"  # UNet2DConditionModel
ALL_ATTENTION = r"(attentions\.\d+|attn1|attn2)\.(to_q|to_k|to_v|to_out\.0)$"
TIMM_ATTENTION = r"attn\.(qkv|proj)$"  # timm's vision transformers


def find(model: nn.Module, targets: Targets) -> list[tuple[str, Dense]]:
    """The dense layers whose full name the regex finds, or the predicate accepts, in the model's order.

    A layer that PEFT has wrapped answers to its old name; layers of other handles are not looked at. Raises ValueError
    where nothing matches, with names that are near, and for a layer that cannot be updated.
    """
    chosen = (lambda name, _: re.search(targets, name) is not None) if isinstance(targets, str) else targets
    parents = dict(model.named_modules())
    dense = {
        name.removesuffix(WRAPPED): (name, module)
        for name, module in parents.items()
        if isinstance(module, nn.Linear | nn.Conv2d) and not is_added(name)
    }
    found = [(name, layer) for name, (_, layer) in dense.items() if chosen(name, layer)]
    if not found:
        raise ValueError(f"no dense layer matches targets={targets!r}; near: {', '.join(_near(targets, [*dense]))}")
    for name, layer in found:
        _check(name, layer, parents[dense[name][0].rpartition(".")[0]])
    return found


def is_added(name: str) -> bool:
    """Whether drop_in added what has this full name."""
    return _ADDED.search(name) is not None


def at(model: nn.Module, name: str) -> nn.Module:
    """The layer of a name that ``find`` gave, inside what PEFT may have put around it. Raises AttributeError."""
    layer = model.get_submodule(name)
    return layer.base_layer if hasattr(layer, "base_layer") else layer  # pyright: ignore[reportReturnType]


def _check(name: str, layer: Dense, parent: nn.Module) -> None:
    kind = type(layer)
    if isinstance(parent, nn.MultiheadAttention):
        raise ValueError(f"{name}: torch's MultiheadAttention reads this layer's weight and never calls it")
    if isinstance(parent, nn.TransformerEncoderLayer):
        raise ValueError(f"{name}: torch's TransformerEncoderLayer does not call this layer when it evaluates")
    if kind not in HOSTS and not isinstance(layer, Host):
        raise ValueError(f"{name} is a {kind.__module__}.{kind.__name__}, not a plain torch.nn.Linear or Conv2d")
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise ValueError(f"{name}: a convolution in {layer.groups} groups has no dense weight to update")


def _near(targets: Targets, names: list[str]) -> list[str]:
    if not isinstance(targets, str):
        return names[:5]
    words = re.findall(r"\w{3,}", targets.replace("\\d", " ").replace("\\w", " "))
    near = [name for name in names if any(word in name for word in words)]
    return (near or get_close_matches(targets, names, n=5, cutoff=0.1) or names)[:5]

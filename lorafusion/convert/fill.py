"""A network filled from weights of any known layout: the layout is told by the names, every key is accounted for."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lorafusion.convert.edm import edm
from lorafusion.convert.iddpm import iddpm
from lorafusion.convert.keys import first, load
from lorafusion.convert.nano import nano
from lorafusion.errors import UserError

# what one of its names looks like, whose it is, the class of ours that it is for, the key map
_LAYOUTS: tuple[tuple[str, str, str, Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]], ...] = (
    (r"(model\.)?(enc|dec)\.\d+x\d+_\w+\..+", "EDM's", "DDPMpp", edm),
    (r"(input|output)_blocks\.\d+\..+", "improved-diffusion's", "IDDPMUNet", iddpm),
    (r"b(\d|_mid|_out)\.\d\.(ln|conv1)\..+", "dataflowr's", "NanoUNet", nano),
)
# what a conditioning adds to a network stands in a slot, or is the shared embedding
_SLOT = re.compile(r"\.(norm_in|norm_out|gate|updates\.\w+)\.")
_EMBEDDING = ("embedding.", "class_embed.")


def fill(net: nn.Module, tensors: Mapping[str, Tensor], *, source: str, base: bool = False) -> list[str]:
    """Fill ``net`` in place; by its own names or by those of an original. Returns what keeps its init.

    base:  what the network's conditioning adds may be missing and then keeps its init: each kind of addition (the
           UC-LoRA updates, the shifts, the embedding, ...) is in ``tensors`` as a whole or not at all.

    Raises UserError naming the first keys that differ; ``net`` is then unchanged.
    """
    ours = _by_our_names(net, tensors, source)
    state = net.state_dict()
    present = {_addition(key) for key in ours}
    fresh = [key for key in state if key not in ours and base and _addition(key) not in {None, *present}]
    load(net, {**ours, **{key: state[key] for key in fresh}}, source=source)
    return fresh


def _by_our_names(net: nn.Module, tensors: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    for pattern, whose, wanted, renamed in _LAYOUTS:
        if found := [name for name in tensors if re.fullmatch(pattern, name)]:
            if wanted not in {c.__name__ for c in type(net).__mro__}:
                differ = f"it holds {first(found)}; ours are {first(net.state_dict())}"
                raise UserError(f"{source}: {whose} weights fit a {wanted}, not a {type(net).__name__}: {differ}")
            try:
                return renamed(tensors, net)
            except UserError as error:
                raise UserError(f"{source}: {error}") from None
    return tensors


def _addition(key: str) -> tuple[bool, str] | None:
    """Which kind of addition a parameter belongs to; None = the network itself."""
    if match := _SLOT.search(key):
        return ".attn." in key, match[1]
    return (False, "embedding") if key.startswith(_EMBEDDING) else None

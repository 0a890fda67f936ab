"""Key map from IDDPM's networks (openai/improved-diffusion) to IDDPMUNet.

input_blocks.0.0.weight                  conv_in.weight
input_blocks.4.0.op.weight               enc.16_down.weight
input_blocks.5.0.in_layers.0.weight      enc.16_block0.norm0.weight
input_blocks.5.0.emb_layers.1.weight     enc.16_block0.norm1.norm_out.affine.weight
input_blocks.5.1.qkv.weight              enc.16_block0.attn.qkv.weight                 rows reordered
middle_block.2.in_layers.0.weight        mid.block1.norm0.weight
output_blocks.3.2.conv.weight            dec.8_up.weight
label_emb.weight                         embedding.label.weight                        transposed
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from lorafusion.convert.keys import first, qkv_rows
from lorafusion.errors import UserError

_TOP = {
    "input_blocks.0.0": "conv_in",
    "out.0": "out_norm",
    "out.2": "out_conv",
    "time_embed.0": "embedding.layer0",
    "time_embed.2": "embedding.layer1",
    "label_emb": "embedding.label",
}
_INNER = {
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "norm1.norm_out.affine",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
    "norm": "attn.norm",
    "qkv": "attn.qkv",
    "proj_out": "attn.proj",
}


class IDDPMUNet(Protocol):
    """What is asked of the network: the blocks of its two halves by name, and the heads of its attention."""

    enc: nn.ModuleDict
    dec: nn.ModuleDict
    heads: int


def iddpm(state: Mapping[str, Tensor], net: IDDPMUNet) -> dict[str, Tensor]:
    """``state`` of the original, by our names and in our layout; to be given to ``keys.load``.

    net:  the network that it is for; it is not changed.

    Raises UserError for a key that has no place in ``net``.
    """
    names = _modules(net)
    ours, unknown = {}, []
    for key, value in state.items():
        module, _, parameter = key.rpartition(".")
        if module in names:
            renamed = f"{names[module]}.{parameter}"
            ours[renamed] = _relayout(renamed, value, net.heads)
        else:
            unknown.append(key)
    if unknown:
        raise UserError(f"iddpm weights: {len(unknown)} keys have no place in this network: {first(unknown)}")
    return ours


def _modules(net: IDDPMUNet) -> dict[str, str]:
    """Their module names -> ours."""
    names = dict(_TOP)

    def block(theirs: str, ours: str, attention: str | None) -> None:
        for inner, name in _INNER.items():
            owner = attention if name.startswith("attn") else theirs
            if owner is not None:
                names[f"{owner}.{inner}"] = f"{ours}.{name}"

    for i, name in enumerate(net.enc, start=1):
        if name.endswith("down"):
            names[f"input_blocks.{i}.0.op"] = f"enc.{name}"
        else:
            block(f"input_blocks.{i}.0", f"enc.{name}", f"input_blocks.{i}.1")
    block("middle_block.0", "mid.block0", "middle_block.1")
    block("middle_block.2", "mid.block1", None)
    i, inner = -1, 1
    for name, module in net.dec.items():
        if name.endswith("up"):  # theirs ends the block before it, behind its attention
            names[f"output_blocks.{i}.{inner}.conv"] = f"dec.{name}"
        else:
            i, inner = i + 1, 1 if module.attn is None else 2
            block(f"output_blocks.{i}.0", f"dec.{name}", f"output_blocks.{i}.1")
    return names


def _relayout(name: str, value: Tensor, heads: int) -> Tensor:
    """``value`` of the original in the layout of our parameter ``name``."""
    if name == "embedding.label.weight":
        return value.T  # rows of a table are columns of a dense layer
    if ".attn." in name and value.ndim == 3:
        value = value.squeeze(2)  # 1 x 1 convolutions are dense layers here
    if ".attn.qkv." in name:
        return qkv_rows(value, 0, heads=heads, fused="head q|k|v channel")
    return value

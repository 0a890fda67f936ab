"""Key map from EDM's networks (NVlabs/edm: DDPM++ and NCSN++, plain or with UC-LoRA) to DDPMpp.

    model.enc.16x16_block0.norm0.weight      enc.16_block0.norm0.weight
    model.enc.16x16_block0.affine.weight     enc.16_block0.norm1.norm_in.affine.weight
    model.enc.16x16_block0.qkv.weight        enc.16_block0.attn.qkv.weight                 rows reordered
    with UC-LoRA:  qkv.conv.weight           attn.qkv.weight                               rows reordered
                   qkv.lora_up.weight        attn.qkv.updates.uc_lora.up                   rows reordered
                   qkv.bias  (m r, 3C)       attn.qkv.updates.uc_lora.bias                 columns reordered
                   qkv.comp_weights.0.1.bias attn.qkv.updates.uc_lora.omega.layers.1.bias
    model.map_layer0.weight                  embedding.layer0.weight                       columns reordered

Their embedding holds the sines first, ours the cosines: what touches it is turned by half its width.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lorafusion.convert.keys import first, qkv_rows
from lorafusion.errors import UserError

_TOP = {
    "map_noise": "embedding.noise",
    "map_label": "embedding.label",
    "map_augment": "embedding.augment",
    "map_layer0": "embedding.layer0",
    "map_layer1": "embedding.layer1",
}
_OUTER = {"conv": "conv_in", "aux_norm": "out_norm", "aux_conv": "out_conv"}
_INNER = {
    **{name: name for name in ("norm0", "conv0", "norm1", "conv1", "skip")},
    "affine": "norm1.norm_in.affine",
    "norm2": "attn.norm",
}


class DDPMpp(Protocol):
    """What is asked of the network: the taps of its resampling filter."""

    taps: Sequence[float]


def edm(state: Mapping[str, Tensor], net: DDPMpp) -> dict[str, Tensor]:
    """``state`` of the original, by our names and in our layout; to be given to ``keys.load``.

    net:  the network that it is for; it is not changed.

    Raises UserError for a key that has no place in a DDPMpp, and for another resampling filter.
    """
    ours, unknown = {}, []
    for key, value in state.items():
        name = key.removeprefix("model.")
        if name.endswith(".resample_filter"):
            _check_filter(key, value, net)
        elif (renamed := _rename(name, value)) is None:
            unknown.append(key)
        else:
            ours[renamed] = _relayout(renamed, value)
    if unknown:
        raise UserError(f"edm weights: {len(unknown)} keys have no place in a DDPM++ network: {first(unknown)}")
    return ours


def _rename(name: str, value: Tensor) -> str | None:
    top, _, rest = name.partition(".")
    if top in _TOP:
        return f"{_TOP[top]}.{rest}"
    if match := re.fullmatch(r"(?:enc|dec)\.(\d+)x\1_(conv|aux_norm|aux_conv)\.(\w+)", name):
        return f"{_OUTER[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"enc\.(\d+)x\1_aux_(?:residual|skip)\.(\w+)", name):
        return f"pyramid.{match[1]}_down.conv.{match[2]}"
    if match := re.fullmatch(r"(enc|dec)\.(\d+)x\2_(block\d+|down|up|in\d)\.(\w+)\.(.+)", name):
        half, size, block, layer, rest = match.groups()
        inner = (
            _dense(layer, rest, value) if layer in ("qkv", "proj") else _INNER.get(layer) and f"{_INNER[layer]}.{rest}"
        )
        return inner and f"{half}.{size}_{block}.{inner}"
    return None


def _dense(layer: str, rest: str, value: Tensor) -> str | None:
    """Name below the block of a parameter of qkv or proj, plain or with UC-LoRA."""
    update = f"attn.{layer}.updates.uc_lora"
    if rest in ("conv.weight", "conv.bias", "weight") or (rest == "bias" and value.ndim == 1):
        return f"attn.{layer}.{rest.removeprefix('conv.')}"
    if rest == "bias":
        return f"{update}.bias"  # the composed bias, (m r, d_out)
    if match := re.fullmatch(r"lora_(down|up)\.weight", rest):
        return f"{update}.{match[1]}"
    if match := re.fullmatch(r"comp_weights\.(\d+)(?:\.([01]))?\.(weight|bias)", rest):
        position = 3 * int(match[1]) + int(match[2] or 0)  # Linear, GroupNorm, SiLU; Linear, GroupNorm, SiLU; ...
        return f"{update}.omega.layers.{position}.{match[3]}"
    return None


def _relayout(name: str, value: Tensor) -> Tensor:
    """``value`` of the original in the layout of our parameter ``name``."""
    if name == "embedding.layer0.weight":
        return torch.roll(value, value.shape[1] // 2, dims=1)
    if name.startswith(("embedding.label.", "embedding.augment.")):
        return torch.roll(value, value.shape[0] // 2, dims=0)
    if ".attn." in name and value.ndim == 4:
        value = value.flatten(1)  # 1 x 1 convolutions are dense layers here
    if ".attn.qkv." in name and not name.endswith("uc_lora.down") and ".omega." not in name:
        return qkv_rows(value, value.ndim - 1 if name.endswith("uc_lora.bias") else 0, heads=1, fused=_FUSED)
    return value


_FUSED = "head channel q|k|v"  # with q|k|v fastest, heads make no difference


def _check_filter(key: str, value: Tensor, net: DDPMpp) -> None:
    taps = torch.tensor([*net.taps], dtype=value.dtype)
    wanted = taps[:, None] * taps / taps.sum() ** 2
    if value.squeeze().shape != wanted.shape or not torch.allclose(value.squeeze(), wanted):
        raise UserError(f"edm weights: {key} is not the filter of resample_filter={list(net.taps)}")

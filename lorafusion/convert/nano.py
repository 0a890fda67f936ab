"""Key map from dataflowr's teaching U-Net (its DDPM notebook, at 32 px) to NanoUNet.

time_embed.weight      left out: a frozen table, which ours computes (and theirs is wrong)
b1.0.ln.weight         enc.0.norm.weight
te1.2.weight           enc.0.norm.norm_in.affine.2.weight
b1.1.ln.weight         enc.0.norms.0.weight
b_mid.2.conv1.weight   mid.convs.2.weight
up1.weight             up.0.weight
b4.0.conv1.weight      dec.0.convs.0.weight
conv_out.weight        out.weight
"""

from collections.abc import Mapping, Sized
from typing import Protocol

from torch import Tensor

from lorafusion.convert.keys import first
from lorafusion.errors import UserError

_STAGES = {"1": "enc.0", "2": "enc.1", "3": "enc.2", "_mid": "mid", "4": "dec.0", "5": "dec.1", "_out": "dec.2"}
_LEFT_OUT = "time_embed.weight"


class Stage(Protocol):
    @property
    def convs(self) -> Sized: ...


class NanoUNet(Protocol):
    """What is asked of the network: how many levels it has, and how many units a stage."""

    @property
    def down(self) -> Sized: ...

    @property
    def mid(self) -> Stage: ...


def nano(state: Mapping[str, Tensor], net: NanoUNet) -> dict[str, Tensor]:
    """``state`` of the original, by our names; to be given to ``keys.load``.

    net:  the network that it is for, with ``Shift`` at its convolutions. It is not changed.

    Raises UserError for a key that has no place in ``net``.
    """
    names = _modules(net)
    ours, unknown = {}, []
    for key, value in state.items():
        module, _, parameter = key.rpartition(".")
        if module in names:
            ours[f"{names[module]}.{parameter}"] = value
        elif key != _LEFT_OUT:
            unknown.append(key)
    if unknown:
        raise UserError(f"nano weights: {len(unknown)} keys have no place in this network: {first(unknown)}")
    return ours


def _modules(net: NanoUNet) -> dict[str, str]:
    """Their module names -> ours."""
    names = {"conv_out": "out"}
    for i in range(len(net.down)):
        names |= {f"down{i + 1}": f"down.{i}", f"up{i + 1}": f"up.{i}"}
    for theirs, ours in _STAGES.items():
        for i in range(len(net.mid.convs)):
            names[f"b{theirs}.{i}.conv1"] = f"{ours}.convs.{i}"
            names[f"b{theirs}.{i}.ln"] = f"{ours}.norms.{i - 1}" if i else f"{ours}.norm"
        for i in (0, 2):  # Linear - SiLU - Linear
            names[f"te{theirs}.{i}"] = f"{ours}.norm.norm_in.affine.{i}"
    return names

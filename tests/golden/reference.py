"""What the original networks and processes compute, recorded in the .safetensors files beside this one.

A file holds inputs, outputs, the original's arguments and the names and shapes of its parameters. Their values are not
stored: a rule fills them, by their place in the sorted list of names.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.convert.edm import edm
from lorafusion.convert.iddpm import iddpm
from lorafusion.convert.keys import load


@dataclass(frozen=True)
class Reference:
    """config: the original's arguments. parameters: (name, shape) of each, sorted. tensors: inputs and outputs."""

    name: str
    config: dict
    parameters: list[tuple[str, list[int]]]
    tensors: dict[str, Tensor]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def get(self, key: str) -> Tensor | None:
        return self.tensors.get(key)

    def weights(self) -> dict[str, Tensor]:
        """The original's state dict, float32."""
        return {name: _fill(k, name, shape) for k, (name, shape) in enumerate(self.parameters)}


@cache
def reference(name: str) -> Reference:
    """The file ``name``.safetensors. Its tensors are shared between tests: leave them as they are."""
    with safe_open(Path(__file__).with_name(f"{name}.safetensors"), "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
    return Reference(name, json.loads(metadata["config"]), json.loads(metadata["parameters"]), tensors)


def edm_net(ref: Reference) -> DDPMpp:
    """The network of an edm_* file, float32, in eval mode."""
    c, lora = ref.config, ref.config["lora"]
    net = DDPMpp(
        c["img_resolution"],
        c["img_channels"],
        c["model_channels"],
        c["channel_mult"],
        c["num_blocks"],
        c["attn_resolutions"],
        dropout=c["dropout"],
        augment_dim=c["augment_dim"],
        num_classes=c["label_dim"] or None,
    )
    attn = [UCLoRA(lora["rank"], lora["bases"], lora["mlp"])] if lora else []
    Conditioning([Shift()], attn).attach(net)
    load(net, edm(ref.weights(), net), source=ref.name)
    return net.eval()


def iddpm_net(ref: Reference) -> IDDPMUNet:
    """The network of an iddpm_* file, float32, in eval mode."""
    c = ref.config
    net = IDDPMUNet(
        c["res"],
        3,
        c["channels"],
        c["channel_mult"],
        c["num_res_blocks"],
        [c["res"] // factor for factor in c["attention_downsample"]],
        c["num_heads"],
        learned_variance=c["learn_sigma"],
        num_steps=c["T"],
        num_classes=c["num_classes"],
    )
    Conditioning([ScaleShift()]).attach(net)
    load(net, iddpm(ref.weights(), net), source=ref.name)
    return net.eval()


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|, in float64."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm()).item()


def _fill(k: int, name: str, shape: list[int]) -> Tensor:
    n = math.prod(shape)
    wave = torch.cos(torch.arange(n, dtype=torch.float64) * 0.7311 * (1 + 0.01 * k) + k)
    if len(shape) >= 2:
        wave = wave * math.sqrt(2 / math.prod(shape[1:]))
    else:
        wave = 1 + 0.1 * wave if name.endswith("weight") else 0.1 * wave
    return wave.float().reshape(shape)

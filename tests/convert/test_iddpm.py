import pytest
import torch

from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.convert.iddpm import iddpm
from lorafusion.convert.keys import load
from lorafusion.errors import UserError
from tests.golden.reference import iddpm_net, reference


def original_shapes(*, mult, blocks, attention, classes) -> dict[str, list[int]]:
    """Names and shapes of the original's parameters, after its rules, at 32 px and 32 channels."""
    shapes: dict[str, list[int]] = {}

    def layer(name, weight, bias=None):
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = [weight[0]] if bias is None else bias

    def block(name, c_in, c_out):
        layer(f"{name}.in_layers.0", [c_in])
        layer(f"{name}.in_layers.2", [c_out, c_in, 3, 3])
        layer(f"{name}.emb_layers.1", [2 * c_out, 128])
        layer(f"{name}.out_layers.0", [c_out])
        layer(f"{name}.out_layers.3", [c_out, c_out, 3, 3])
        if c_in != c_out:
            layer(f"{name}.skip_connection", [c_out, c_in, 1, 1])

    def attn(name, c):
        layer(f"{name}.norm", [c])
        layer(f"{name}.qkv", [3 * c, c, 1])
        layer(f"{name}.proj_out", [c, c, 1])

    layer("time_embed.0", [128, 32])
    layer("time_embed.2", [128, 128])
    if classes:
        shapes["label_emb.weight"] = [classes, 128]
    layer("input_blocks.0.0", [32, 3, 3, 3])
    n, c, skips, size = 1, 32, [32], 32
    for level, m in enumerate(mult):
        for _ in range(blocks):
            block(f"input_blocks.{n}.0", c, 32 * m)
            c = 32 * m
            if size in attention:
                attn(f"input_blocks.{n}.1", c)
            skips.append(c)
            n += 1
        if level < len(mult) - 1:
            layer(f"input_blocks.{n}.0.op", [c, c, 3, 3])
            skips.append(c)
            n, size = n + 1, size // 2
    block("middle_block.0", c, c)
    attn("middle_block.1", c)
    block("middle_block.2", c, c)
    n = 0
    for level in reversed(range(len(mult))):
        for i in range(blocks + 1):
            inner = 1
            block(f"output_blocks.{n}.0", c + skips.pop(), 32 * mult[level])
            c = 32 * mult[level]
            if size in attention:
                attn(f"output_blocks.{n}.1", c)
                inner = 2
            if level and i == blocks:
                layer(f"output_blocks.{n}.{inner}.conv", [c, c, 3, 3])
                size *= 2
            n += 1
    layer("out.0", [c])
    layer("out.2", [6, c, 3, 3])
    return shapes


@pytest.mark.parametrize("classes", [None, 10])
@pytest.mark.parametrize("mult", [(1, 2, 2, 2), (1, 2, 3, 4)])
def test_every_key_has_its_place(mult, classes):
    sizes = {"mult": mult, "blocks": 3, "attention": [16, 8]}
    state = {key: torch.zeros(shape) for key, shape in original_shapes(classes=classes, **sizes).items()}
    net = IDDPMUNet(32, 3, 32, mult, 3, [16, 8], num_classes=classes)
    Conditioning([ScaleShift()]).attach(net)
    ours = iddpm(state, net)
    assert len(ours) == len(state), "two keys of the original became one"
    load(net, ours, source="original.pt")  # names and shapes agree


def test_an_unknown_key_is_named():
    ref = reference("iddpm_uncond")
    with pytest.raises(UserError, match=r"1 keys have no place in this network: input_blocks.9.0.in_layers.0.weight"):
        iddpm({**ref.weights(), "input_blocks.9.0.in_layers.0.weight": torch.ones(1)}, iddpm_net(ref))


def test_a_lost_key_is_named():
    ref = reference("iddpm_uncond")
    net, state = iddpm_net(ref), ref.weights()
    del state["middle_block.1.qkv.weight"]
    with pytest.raises(UserError, match=r"1 missing: mid.block0.attn.qkv.weight"):
        load(net, iddpm(state, net), source="original.pt")

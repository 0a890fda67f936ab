"""Nano: the original's size and output, the sizes it takes and refuses, its classes."""

import pytest
import torch
from torch import nn

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.convert.keys import load
from lorafusion.convert.nano import nano
from tests.golden.reference import reference, relative


class Lookup(nn.Module):
    """The original's time table, a row a step; in the reference it is filled like every parameter."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, noise):
        return self.table[noise.long()]


def original(**parameters):
    """The network of the notebook."""
    return Conditioning(conv=[Shift()]).attach(NanoUNet(32, 1, attn_resolutions=[], **parameters))


def test_has_the_originals_size():
    net = original()
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 437_532
    theirs = sum(
        torch.Size(shape).numel() for name, shape in reference("nano").parameters if name != "time_embed.weight"
    )
    assert theirs == 437_532


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_computes_what_the_original_does(dtype):
    ref = reference("nano")
    net, weights = original(num_steps=ref.config["n_steps"]), ref.weights()
    load(net, nano(weights, net), source="nano")
    net.noise_embed = Lookup(weights["time_embed.weight"])
    net.to(dtype).noise_embed.table = net.noise_embed.table.to(dtype)
    with torch.no_grad():
        out = net(ref["x"].to(dtype), ref["t"].to(dtype), ref["t"])
    assert relative(out, ref["eps"]) < 1e-5


@pytest.mark.parametrize("resolution", [8, 24, 40])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size(resolution, channels):
    net = NanoUNet(resolution, channels, attn_resolutions=[resolution // 2, resolution // 8])
    Conditioning([Shift()], [UCLoRA()]).attach(net)
    x = torch.randn(2, channels, resolution, resolution)
    assert net(x, torch.tensor([0.1, 0.7])).shape == x.shape


@pytest.mark.parametrize("resolution", [-8, 0, 4, 12, 28, 33])
def test_refuses_other_sizes_in_one_line(resolution):
    said = rf"^nano halves its image three times: resolution must be a multiple of 8, got {resolution}$"
    with pytest.raises(ValueError, match=said):
        NanoUNet(resolution)


@pytest.mark.parametrize(
    ("attn_resolutions", "at"),
    [
        ([8, 4], ["enc.2", "mid", "dec.0"]),
        ([32], ["enc.0", "dec.2"]),
        ([16], ["enc.1", "dec.1"]),
        ([], []),
    ],
)
def test_attention_is_at_the_sizes_asked_for(attn_resolutions, at):
    net = NanoUNet(32, attn_resolutions=attn_resolutions)
    seen = {}
    for site in net.sites():
        if site.name.endswith("attn"):
            site["gate"].register_forward_pre_hook(
                lambda _, args, name=site.name: seen.update({name: round(args[0].shape[1] ** 0.5)})
            )
    net(torch.randn(1, 1, 32, 32), torch.zeros(1))
    assert [*seen] == [f"{stage}.attn" for stage in at]
    assert set(seen.values()) == set(attn_resolutions)


def test_classes_are_embedded_linearly():
    """K x 100 more parameters; what a label does is linear in it up to the embedding."""
    net = Conditioning(conv=[Shift()]).attach(NanoUNet(8, num_classes=5))
    plain = Conditioning(conv=[Shift()]).attach(NanoUNet(8))
    count = [sum(p.numel() for p in n.parameters()) for n in (net, plain)]
    assert count[0] - count[1] == 5 * 100
    noise, label = torch.tensor([0.3]), torch.tensor([[0.2, 0.0, -1.0, 0.0, 2.0]])
    want = plain.embed(noise, None) + (net.class_embed.weight * label).sum(1)
    torch.testing.assert_close(net.embed(noise, label), want)
    x = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(net(x, noise, label=label), net(x, noise, label=-label))


def test_classes_may_be_left_to_the_strategies():
    net = Conditioning(conv=[Shift()]).attach(NanoUNet(8, num_classes=5, class_embedding=False))
    assert net.class_embed is None
    x, noise = torch.randn(1, 1, 8, 8), torch.zeros(1)
    assert torch.equal(net(x, noise, label=torch.eye(5)[:1]), net(x, noise, label=torch.eye(5)[1:2]))
    assert {site.num_classes for site in net.sites()} == {5}


def test_classes_need_a_label():
    net = Conditioning(conv=[Shift()]).attach(NanoUNet(8, num_classes=5))
    with pytest.raises(ValueError, match=r"^nano: this network was built for 5 classes and got no label$"):
        net(torch.randn(1, 1, 8, 8), torch.zeros(1))


def test_noise_scale_spreads_a_continuous_noise_level(float64):
    """EDM's c_noise spans about 3: times 250, it moves the embedding as steps do."""
    steps, scaled = (Conditioning([Shift()]).attach(NanoUNet(8, noise_scale=scale)) for scale in (1, 250))
    c_noise = torch.tensor([-1.5, 2.0])
    torch.testing.assert_close(scaled.embed(c_noise, None), steps.embed(250 * c_noise, None))

import pytest
import torch

from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.sites import AttnSite

SMALL = {"resolution": 16, "model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}


def net(**options) -> IDDPMUNet:
    torch.manual_seed(0)
    return Conditioning([ScaleShift()]).attach(IDDPMUNet(**{**SMALL, **options}))


@pytest.mark.parametrize(("learned_variance", "maps"), [(True, 6), (False, 3)])
def test_starts_by_predicting_zero(learned_variance, maps):
    out = net(learned_variance=learned_variance)(torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]))
    assert torch.equal(out, torch.zeros(2, maps, 16, 16))


def test_a_resolution_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="3 levels halve the image 2 times, and a resolution of 18"):
        net(resolution=18, channel_mult=(1, 2, 2))


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="32 channels do not divide into 5 heads"):
        net(heads=5)


def test_classes_need_a_label():
    with pytest.raises(ValueError, match="built for 7 classes and got no label"):
        net(num_classes=7)(torch.randn(2, 3, 16, 16), torch.zeros(2))


def test_a_class_is_a_row_of_its_table(float64):
    """One-hot labels add what a lookup in the original's table adds, before the last silu."""
    network, noise = net(num_classes=5), torch.tensor([10.0, 500.0])
    embedding, y = network.embedding, torch.tensor([3, 1])
    table = embedding.label.weight.T
    bare = embedding.layer1(torch.nn.functional.silu(embedding.layer0(embedding.noise(noise))))
    want = torch.nn.functional.silu(bare + table[y])
    torch.testing.assert_close(embedding(noise, torch.eye(5)[y]), want)


@pytest.mark.parametrize("model_channels", [12, 24, 48, 80])
def test_any_width(model_channels):
    """32 groups where they divide the channels, else as many as do."""
    network = net(model_channels=model_channels, heads=4)
    assert network(torch.randn(1, 3, 16, 16), torch.zeros(1)).shape == (1, 6, 16, 16)


def test_groups_are_32_at_the_published_widths():
    with torch.device("meta"):
        network = IDDPMUNet(resolution=64, channel_mult=(1, 2, 3, 4))
    assert {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)} == {32}


def test_sites_come_in_forward_order():
    network, order = net(), []
    sites = [*network.sites()]
    for site in sites:
        slot = "qkv" if isinstance(site, AttnSite) else "norm_in"
        site[slot].register_forward_hook(lambda *_, name=site.name: order.append(name))
    network(torch.randn(1, 3, 16, 16), torch.zeros(1))
    assert order == [site.name for site in sites]
    assert "mid.block0.attn" in order

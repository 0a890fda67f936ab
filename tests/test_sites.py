"""The seam: null slots, zeroed layers, and values that broadcast over feature maps and tokens."""

import pytest
import torch
from torch import nn

from lorafusion.sites import Cond, GroupNorm, LayerNorm, Linear, Same, per_channel, zeroed
from tests.conditioning.places import C, attention, convolution


@pytest.mark.parametrize(
    ("slotted", "plain", "x"),
    [
        (GroupNorm(2, 8, 1e-6), nn.GroupNorm(2, 8, 1e-6), torch.randn(3, 8, 4, 4)),
        (LayerNorm([8, 4, 4]), nn.LayerNorm([8, 4, 4]), torch.randn(3, 8, 4, 4)),
        (Linear(8, 5), nn.Linear(8, 5), torch.randn(3, 7, 8)),
    ],
    ids=["GroupNorm", "LayerNorm", "Linear"],
)
def test_with_empty_slots_it_is_the_plain_layer(slotted, plain, x):
    for p in plain.parameters():
        nn.init.normal_(p)
    slotted.load_state_dict(plain.state_dict())  # and its state dict has no other names
    assert torch.equal(slotted(x, Cond(torch.zeros(3))), plain(x))


def test_per_channel_broadcasts_over_maps_and_tokens():
    v = torch.randn(2, 5)
    for x in (torch.zeros(2, 5, 3, 4), torch.zeros(2, 12, 5)):
        y = x + per_channel(v, x)
        for b in range(2):
            for c in range(5):
                assert (y[b, c] if x.ndim == 4 else y[b, :, c]).unique().item() == v[b, c]


def test_zeroed_leaves_all_but_the_last_layer():
    layer = zeroed(nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 5)))
    assert not layer(torch.randn(2, 3)).any()
    assert layer[0].weight.abs().min() > 0


def test_a_slot_is_filled_once():
    site = convolution(GroupNorm(2, C))
    site.fill("norm_in", nn.Dropout())
    with pytest.raises(ValueError, match=r"^here: slot 'norm_in' is already taken by Dropout, so ReLU cannot enter"):
        site.fill("norm_in", nn.ReLU())
    for unknown in (lambda: site["qkv"], lambda: site.fill("qkv", Same()), lambda: site.__setitem__("qkv", Same())):
        with pytest.raises(KeyError, match="here has no slot 'qkv'; it has norm_in, norm_out"):
            unknown()


def test_a_dense_slot_cannot_be_replaced():
    _, site = attention()
    with pytest.raises(ValueError, match="already taken by Linear"):
        site.fill("qkv", Same())

"""The low-rank layer: its init, its one-hot form, updates that add up, and what it refuses."""

import pytest
import torch
from torch import nn

from lorafusion.lora import LoRALinear, LowRank, SelectedLowRank, add_update
from lorafusion.sites import Cond, Linear
from tests.conditioning.places import attention

pytestmark = pytest.mark.usefixtures("float64")


class Index(nn.Module):
    def forward(self, cond):
        return cond.step


class OneHot(nn.Module):
    def forward(self, cond):
        return torch.eye(7)[cond.step]


class Label(nn.Module):
    def forward(self, cond):
        return cond.label


def _random(update):
    for p in update.parameters():
        nn.init.normal_(p)
    return update


def test_init_of_the_paper():
    """A ~ N(0, (1/r)^2), B = 0, composed bias 0, scale 1."""
    torch.manual_seed(0)
    update = LowRank(300, 20, rank=4, num_bases=50, omega=Index(), bias=True, scale="learned")
    assert update.down.shape == (200, 300)
    assert update.up.shape == (20, 200)
    assert update.down.mean().abs() < 4 * 0.25 / 60_000**0.5
    assert update.down.std().item() == pytest.approx(1 / 4, rel=4 / (2 * 60_000) ** 0.5)
    assert not update.up.any()
    assert not update.bias.any()
    assert update.scale.item() == 1


@pytest.mark.parametrize("scale", ["fixed", "learned"])
@pytest.mark.parametrize("bias", [False, True])
def test_selected_is_low_rank_with_one_hot(bias, scale):
    sizes = {"rank": 2, "num_bases": 7, "bias": bias, "scale": scale}
    selected = _random(SelectedLowRank(5, 6, omega=Index(), **sizes))
    full = LowRank(5, 6, omega=OneHot(), **sizes)
    full.load_state_dict(selected.state_dict())
    x, cond = torch.randn(4, 3, 5), Cond(torch.zeros(4), torch.tensor([6, 0, 3, 0]))
    torch.testing.assert_close(selected(x, cond), full(x, cond))
    torch.testing.assert_close(selected.mixture(cond), full.mixture(cond))
    one, w = Cond(torch.zeros(1), torch.tensor([3])), torch.randn(6, 5)
    for b in (None, torch.randn(6)):
        merged = [u.merge(w, b, u.omega(one)) for u in (selected, full)]
        torch.testing.assert_close(*merged)
    grads = [torch.autograd.grad(u(x, cond).square().sum(), [*u.parameters()]) for u in (selected, full)]
    torch.testing.assert_close(*grads)


def test_updates_of_one_layer_add_up():
    layer = LoRALinear(Linear(5, 6))
    first = _random(LowRank(5, 6, rank=2, num_bases=7, omega=OneHot(), bias=True))
    second = _random(LowRank(5, 6, rank=1, num_bases=3, omega=Label()))
    layer.updates.update({"time": first, "class": second})
    x, cond = torch.randn(4, 3, 5), Cond(torch.zeros(4), torch.tensor([6, 0, 3, 0]), torch.randn(4, 3))
    want = x @ layer.weight.T + layer.bias + first(x, cond) + second(x, cond)
    torch.testing.assert_close(layer(x, cond), want)


def test_the_base_layer_keeps_its_parameters():
    """The optimizer may hold them already: they are the same objects."""
    _, site = attention()
    weight, bias = site["proj"].weight, site["proj"].bias
    add_update(site, "proj", "a", LowRank(8, 8, rank=1, num_bases=1, omega=Label()))
    assert site["proj"].weight is weight
    assert site["proj"].bias is bias
    assert isinstance(site["proj"], nn.Linear)


def test_an_update_follows_the_layers_dtype():
    _, site = attention()
    site["qkv"].float()
    add_update(site, "qkv", "a", LowRank(8, 24, rank=1, num_bases=1, omega=Label()))
    assert {p.dtype for p in site["qkv"].parameters()} == {torch.float32}


def test_refusals():
    _, site = attention()
    for sizes in ({"rank": 0, "num_bases": 1}, {"rank": 1, "num_bases": 0}):
        with pytest.raises(ValueError, match=r"^rank and num_bases must be at least 1; got rank="):
            LowRank(8, 8, omega=Label(), **sizes)
    update = LowRank(8, 8, rank=1, num_bases=1, omega=Label())
    add_update(site, "proj", "a", update)
    with pytest.raises(ValueError, match=r"^here: 'proj' already has an update named 'a'$"):
        add_update(site, "proj", "a", update)
    with pytest.raises(TypeError, match=r"^here: slot 'gate' holds Same, not a dense layer$"):
        add_update(site, "gate", "a", update)
    with pytest.raises(KeyError, match="here has no slot 'value'; it has norm_in, norm_out, qkv, proj, gate"):
        add_update(site, "value", "a", update)

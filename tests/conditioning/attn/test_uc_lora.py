"""UC-LoRA: omega is an MLP of the layer's own on the shared embedding; the composed bias; the published size."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from lorafusion.backbones.attention import AttentionBlock
from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.uc_lora import EmbMLP, UCLoRA
from lorafusion.lora import add_update
from lorafusion.sites import Cond
from tests.conditioning.places import E, attention

pytestmark = pytest.mark.usefixtures("float64")


def test_omega_is_the_mlp_of_the_paper():
    """Linear(E, w1) - GroupNorm - SiLU - Linear(w1, w2) - GroupNorm - SiLU - Linear(w2, m); min(32, w // 4) groups."""
    _, site = attention()
    UCLoRA(num_bases=5, mlp=(16, 8)).attach(site)
    omega = site["proj"].updates["uc_lora"].omega
    for p in omega.parameters():
        torch.nn.init.normal_(p)
    w0, b0, g0, h0, w1, b1, g1, h1, w2, b2 = omega.parameters()
    emb = torch.randn(3, E)
    y = F.silu(F.group_norm(emb @ w0.T + b0, 4, g0, h0))
    y = F.silu(F.group_norm(y @ w1.T + b1, 2, g1, h1))
    torch.testing.assert_close(omega(Cond(torch.zeros(3), emb=emb)), y @ w2.T + b2)


def test_composed_bias():
    """It adds repeat(omega, r) @ bias, whatever x is."""
    _, site = attention()
    UCLoRA(rank=2, num_bases=3, mlp=(8,)).attach(site)
    update = site["qkv"].updates["uc_lora"]
    assert not update.bias.any()
    torch.nn.init.normal_(update.bias)
    cond = Cond(torch.zeros(2), emb=torch.randn(2, E))
    omega = update.omega(cond)
    want = sum(omega[:, i, None] * update.bias[2 * i + j] for i in range(3) for j in range(2))
    torch.testing.assert_close(update(torch.randn(2, 5, 8), cond), want[:, None].expand(2, 5, 24))


def test_layers_have_their_own_mlp():
    _, site = attention()
    UCLoRA(mlp=(8,)).attach(site)
    qkv, proj = (site[slot].updates["uc_lora"].omega for slot in ("qkv", "proj"))
    assert not {id(p) for p in qkv.parameters()} & {id(p) for p in proj.parameters()}


@pytest.mark.parametrize("mlp", [(), (16,), (16, 8)])
@pytest.mark.parametrize("rows", [1, 3])
def test_computed_for_all_layers_at_once_omega_is_each_layers_own(mlp, rows):
    net = _network(mlp)
    cond = Cond(torch.zeros(rows), emb=torch.randn(rows, net.emb_width))
    omegas = [m for m in net.modules() if isinstance(m, EmbMLP)]
    assert len(omegas) > 4
    for omega in omegas:
        torch.testing.assert_close(omega(cond), omega.layers(cond.emb))
    assert len(cond.memo) == 1


def test_other_shapes_are_computed_apart():
    net = _network((16,))
    Conditioning(attn=[_Second(UCLoRA(num_bases=3, mlp=(8,)))]).attach(net)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    cond = Cond(torch.zeros(3), emb=torch.randn(3, net.emb_width))
    for omega in (m for m in net.modules() if isinstance(m, EmbMLP)):
        torch.testing.assert_close(omega(cond), omega.layers(cond.emb))
    assert len(cond.memo) == 2


def test_gradients_of_a_layer_are_its_own():
    net = _network((16, 8))
    emb = torch.randn(3, net.emb_width, requires_grad=True)
    omegas = [m for m in net.modules() if isinstance(m, EmbMLP)]
    weights = [torch.randn(3, 5) for _ in omegas]
    cond = Cond(torch.zeros(3), emb=emb)
    got, want = (
        torch.autograd.grad(
            sum((give(o) * w).sum() for o, w in zip(omegas, weights, strict=True)),
            [emb, *(p for o in omegas for p in o.parameters())],
        )
        for give in (lambda o: o(cond), lambda o: o.layers(emb))
    )
    torch.testing.assert_close(got, want)


def test_a_copy_computes_with_weights_of_its_own():
    net = _network((16,))
    copy = deepcopy(net)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    cond = Cond(torch.zeros(3), emb=torch.randn(3, net.emb_width))
    for omega in (m for m in copy.modules() if isinstance(m, EmbMLP)):
        torch.testing.assert_close(omega(cond), omega.layers(cond.emb))
        assert omega(cond).any()


class _Second:
    """A strategy whose updates have another name than the first's."""

    needs_emb = True

    def __init__(self, strategy):
        self.strategy = strategy

    def attach(self, site):
        for slot in site.dense_slots:
            add_update(site, slot, "second", self.strategy._update(site.dense(slot), site.emb_width))


def _network(mlp):
    net = NanoUNet(resolution=8, channels=1, widths=(8, 8, 16), attn_resolutions=(2, 1), num_steps=10)
    Conditioning(attn=[UCLoRA(num_bases=5, mlp=mlp)]).attach(net)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    return net


def _added(**parameters):
    """Parameters that UC-LoRA adds to EDM's attention block: 256 channels, embedding width 512."""
    block = AttentionBlock(256)
    before = sum(p.numel() for p in block.parameters())
    sizes = {"emb_width": 512, "num_steps": None, "num_classes": None}
    UCLoRA(**parameters).attach(block.site("b", affine=torch.nn.Identity, **sizes))
    return sum(p.numel() for p in block.parameters()) - before


def test_published_size():
    """EDM on CIFAR-10 grows from 55,733,891 to 57,745,499 parameters, by its six attention blocks."""
    assert 6 * _added(rank=4, num_bases=18, mlp=(128, 64)) == 57_745_499 - 55_733_891


def test_options_change_the_size_by_what_they_say():
    size = _added(num_bases=18, mlp=(128, 64))
    assert size - _added(num_bases=18, mlp=(128, 64), bias=False) == 18 * 4 * (768 + 256)
    assert _added(num_bases=18, mlp=(128, 64), scale="learned") - size == 2


def test_refuses_an_unknown_scale():
    _, site = attention()
    with pytest.raises(ValueError, match=r"^scale must be 'fixed' or 'learned'; got 'learnt'$"):
        UCLoRA(scale="learnt").attach(site)  # pyright: ignore[reportArgumentType]

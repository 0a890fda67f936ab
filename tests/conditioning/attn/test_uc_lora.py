"""UC-LoRA: omega is an MLP of the layer's own on the shared embedding; the composed bias; the published size."""

import pytest
import torch
import torch.nn.functional as F

from lorafusion.backbones.attention import AttentionBlock
from lorafusion.conditioning.attn.uc_lora import UCLoRA
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

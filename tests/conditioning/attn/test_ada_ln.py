"""adaLN: the block's norm is scaled and shifted; with the gate the block starts as the identity."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lorafusion.conditioning.attn.ada_ln import AdaLN
from lorafusion.sites import Cond
from tests.conditioning.places import C, E, attention

pytestmark = pytest.mark.usefixtures("float64")


def _batch():
    return torch.randn(3, C, 4, 4), Cond(torch.zeros(3), emb=torch.randn(3, E))


def test_with_gate_the_block_starts_as_identity():
    block, site = attention()
    block.skip_scale = 1.0
    x, cond = _batch()
    assert not torch.allclose(block(x, cond), x)
    AdaLN(gate=True).attach(site)
    assert torch.equal(block(x, cond), x)


def test_without_gate_the_block_starts_as_it_was():
    block, site = attention()
    x, cond = _batch()
    before = block(x, cond)
    AdaLN(gate=False).attach(site)
    assert torch.equal(block(x, cond), before)
    assert type(site["gate"]).__name__ == "Same"


def test_formula():
    """x + gate(emb) * proj(attention(qkv(norm(x) * (1 + scale(emb)) + shift(emb)))), a head at a time."""
    block, site = attention()
    AdaLN(gate=True).attach(site)
    for slot in ("norm_out", "gate"):
        nn.init.normal_(site[slot].affine.weight)
        nn.init.normal_(site[slot].affine.bias)
    x, cond = _batch()

    scale, shift = site["norm_out"].affine(cond.emb).split(C, dim=1)
    gate = site["gate"].affine(cond.emb)
    y = F.group_norm(x, 2) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    q, k, v = (y.reshape(3, C, 16).mT @ block.qkv.weight.T + block.qkv.bias).split(C, dim=2)
    heads = []
    for h in (slice(0, C // 2), slice(C // 2, C)):
        heads.append((q[..., h] @ k[..., h].mT / (C // 2) ** 0.5).softmax(2) @ v[..., h])
    y = (torch.cat(heads, dim=2) @ block.proj.weight.T + block.proj.bias) * gate[:, None]
    torch.testing.assert_close(block(x, cond), (x + y.mT.reshape(x.shape)) * 0.7)

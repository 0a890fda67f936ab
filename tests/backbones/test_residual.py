import math

import pytest
import torch

from lorafusion.backbones.resample import Down, Up
from lorafusion.backbones.residual import ResidualBlock
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.sites import Cond

COND = Cond(torch.zeros(2), emb=torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def groups(channels: int) -> int:
    return channels // 4


@pytest.mark.parametrize("resample", [None, Up(), Down(), Up([1, 3, 3, 1]), Down([1, 3, 3, 1])])
def test_with_a_silent_branch_the_skip_is_left(resample, float64):
    """Scaled, resampled, then mixed by the 1 x 1 convolution, in this order wherever the order matters."""
    block = ResidualBlock(8, 4, groups=groups, skip_scale=0.5, resample=resample).double()
    torch.nn.init.zeros_(block.conv1.weight)
    torch.nn.init.zeros_(block.conv1.bias)
    x = torch.randn(2, 8, 6, 6)
    small = x if resample is None else resample.double()(x)
    mixed = torch.einsum("oi,bihw->bohw", block.skip.weight[:, :, 0, 0], small) + block.skip.bias[:, None, None]
    torch.testing.assert_close(block(x, COND), 0.5 * mixed)


def test_the_skip_is_the_identity_where_it_can_be(float64):
    block = ResidualBlock(8, 8, groups=groups)
    assert block.skip is None
    torch.nn.init.zeros_(block.conv1.weight)
    torch.nn.init.zeros_(block.conv1.bias)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x, COND), x)


def test_the_condition_enters_before_the_last_convolution(float64):
    """What Shift adds moves conv0's output: the same as moving conv0's bias, here sample by sample."""
    block = ResidualBlock(8, 8, groups=groups)
    (site,) = block.sites(
        "b", emb_width=5, num_steps=None, num_classes=None, affine=lambda out: torch.nn.Linear(5, out)
    )
    x = torch.randn(2, 8, 6, 6)
    Shift().attach(site)
    out = block(x, COND)
    shift = site["norm_in"].affine(COND.emb)
    plain = ResidualBlock(8, 8, groups=groups)
    for b in range(2):
        state = {key: value.clone() for key, value in block.state_dict().items() if "norm_in" not in key}
        state["conv0.bias"] += shift[b].detach()
        plain.load_state_dict(state)
        torch.testing.assert_close(plain(x[b : b + 1], Cond(torch.zeros(1))), out[b : b + 1])


def test_dropout_is_on_only_in_training():
    block = ResidualBlock(8, 8, groups=groups, dropout=0.5)
    x = torch.randn(2, 8, 6, 6)
    assert not torch.equal(block(x, COND), block(x, COND))
    block.eval()
    assert torch.equal(block(x, COND), block(x, COND))


def test_dropout_keeps_the_expectation(float64):
    """It stands between silu and conv1, so the output is linear in its mask and the mean is the output without it."""
    torch.manual_seed(0)
    block = ResidualBlock(8, 8, groups=groups, dropout=0.3)
    x = torch.randn(1, 8, 4, 4)
    cond = Cond(torch.zeros(4000))
    with torch.no_grad():
        many = block(x.expand(4000, -1, -1, -1), cond)
        error = (many.mean(0) - block.eval()(x, Cond(torch.zeros(1)))[0]).abs()
    assert (error < 5 * many.std(0) / math.sqrt(4000)).all()


def test_attention_ends_the_block(float64):
    block = ResidualBlock(8, 8, groups=groups, skip_scale=0.5, heads=2)
    torch.nn.init.normal_(block.attn.proj.weight)
    x = torch.randn(2, 8, 6, 6)
    names = [site.name for site in block.sites("b", emb_width=5, num_steps=None, num_classes=None, affine=None)]
    assert names == ["b.conv", "b.attn"]
    out = block(x, COND)
    attn, block.attn = block.attn, None
    assert torch.equal(out, attn(block(x, COND), COND))

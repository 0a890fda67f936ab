import pytest
import torch

from lorafusion.backbones.attention import AttentionBlock
from lorafusion.sites import Cond

COND = Cond(torch.zeros(2))


def trained(channels: int, **options) -> AttentionBlock:
    block = AttentionBlock(channels, groups=4, **options)
    torch.nn.init.normal_(block.proj.weight)
    return block


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_every_head_is_softmax_attention_over_the_pixels(heads, float64):
    """Pixel by pixel and head by head, on the rows q|k|v, each head-major."""
    block, x = trained(8, heads=heads, skip_scale=0.5), torch.randn(2, 8, 2, 3)
    y = block.norm(x, COND).flatten(2)  # (B, C, N)
    qkv = torch.einsum("oc,bcn->bon", block.qkv.weight, y) + block.qkv.bias[:, None]
    q, k, v = qkv.chunk(3, dim=1)
    out, d = torch.zeros_like(y), 8 // heads
    for h in range(heads):
        rows = slice(h * d, (h + 1) * d)
        for n in range(6):
            weights = (q[:, rows, n, None] * k[:, rows]).sum(1).div(d**0.5).softmax(-1)  # (B, N)
            out[:, rows, n] = (v[:, rows] * weights[:, None]).sum(-1)
    out = torch.einsum("oc,bcn->bon", block.proj.weight, out) + block.proj.bias[:, None]
    torch.testing.assert_close(block(x, COND), 0.5 * (x + out.unflatten(2, (2, 3))))


def test_the_weights_are_float32_under_autocast():
    """Scores of +-60: rounded to bfloat16 before the softmax they would put the output off by 1 %."""
    torch.manual_seed(0)
    block, x = trained(32), torch.randn(2, 32, 8, 8)
    with torch.no_grad():
        block.qkv.weight[:64] *= 8
        block.proj.weight.copy_(torch.eye(32))
    seen = []
    block.qkv.register_forward_hook(lambda _, args, out: seen.append(out))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = block(x, COND)
    assert seen[0].dtype == torch.bfloat16
    q, k, v = (t.float() for t in seen[0].chunk(3, dim=2))
    scores = q @ k.transpose(1, 2) / 32**0.5
    assert scores.std() > 20
    exact = scores.softmax(-1) @ v
    coarse = scores.bfloat16().softmax(-1).float() @ v
    got = (out - x).flatten(2).transpose(1, 2)
    error, coarse_error = ((t - exact).norm() / exact.norm() for t in (got, coarse))
    assert coarse_error > 0.01
    assert error < 0.003  # what rounding the weights and the sum to bfloat16 leaves


def test_channels_that_do_not_divide_into_heads_are_refused():
    with pytest.raises(ValueError, match="8 channels do not divide into 3 heads"):
        AttentionBlock(8, heads=3)

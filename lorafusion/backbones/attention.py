"""Self-attention over the pixels of a feature map, with the slots of an AttnSite."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.sites import AttnSite, Cond, GroupNorm, Linear, Same, zeroed


class AttentionBlock(nn.Module):
    """x -> (x + gate(proj(attention(qkv(norm(x)))))) * skip_scale. Starts as x -> x * skip_scale: proj is zero at init.

    channels:    C, a multiple of ``heads`` and of ``groups``.
    skip_scale:  sqrt(1/2) in EDM, else 1.
    """

    def __init__(self, channels: int, *, heads: int = 1, groups: int = 32, eps: float = 1e-5, skip_scale: float = 1.0):
        super().__init__()
        if channels % heads:
            raise ValueError(f"attention: {channels} channels do not divide into {heads} heads")
        self.heads, self.skip_scale = heads, skip_scale
        self.norm = GroupNorm(groups, channels, eps)
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        self.gate = Same()
        zeroed(self.proj)

    def forward(self, x: Float[Tensor, "B C H W"], cond: Cond) -> Float[Tensor, "B C H W"]:
        y = self.norm(x, cond).flatten(2).transpose(1, 2).contiguous()  # (B, N, C); no copy in channels_last memory
        qkv = self.qkv(y, cond).unflatten(2, (3, self.heads, -1))  # (B, N, 3, h, C/h)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, h, N, C/h)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, C)
        y = self.gate(self.proj(y, cond), cond)  # (B, N, C)
        return add_skip(x, y.transpose(1, 2).unflatten(2, x.shape[2:]), self.skip_scale)

    def site(self, name: str, *, emb_width: int, affine: Callable[[int], nn.Module], **sizes: int | None) -> AttnSite:
        channels = self.proj.out_features
        return AttnSite(name, self.norm, self, channels=channels, emb_width=emb_width, affine=affine, **sizes)


def add_skip(x: Tensor, y: Tensor, scale: float) -> Tensor:
    """(x + y) * scale, without a multiplication by 1."""
    return x + y if scale == 1 else (x + y) * scale

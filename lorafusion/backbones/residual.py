"""The residual block that DDPM++, NCSN++ and IDDPM share, with the slots of a ConvSite."""

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.backbones.attention import AttentionBlock, add_skip
from lorafusion.backbones.resample import Down, Keep, Up
from lorafusion.sites import Cond, ConvSite, GroupNorm, Site


class ResidualBlock(nn.Module):
    """y = conv1(dropout(silu(norm1(conv0(resample(silu(norm0(x)))), cond)));  x -> attn((skip(x) + y) * skip_scale).

    c_in, c_out:  channels. The skip is the identity where they are equal and nothing is resampled, else a 1 x 1
                  convolution and the same resampling.
    groups:       number of groups of a norm over so many channels.
    dropout:      probability, 0 .. 1.
    skip_scale:   sqrt(1/2) in EDM, else 1.
    resample:     Up, Down or None.
    heads:        of the attention that ends the block; None = no attention.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        groups: Callable[[int], int],
        eps: float = 1e-5,
        dropout: float = 0.0,
        skip_scale: float = 1.0,
        resample: Up | Down | None = None,
        heads: int | None = None,
    ):
        super().__init__()
        self.skip_scale = skip_scale
        self.norm0 = nn.GroupNorm(groups(c_in), c_in, eps)
        self.resample = resample or Keep()
        self.conv0 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm1 = GroupNorm(groups(c_out), c_out, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = None if c_in == c_out and resample is None else nn.Conv2d(c_in, c_out, 1)
        self.attn = (
            None
            if heads is None
            else AttentionBlock(c_out, heads=heads, groups=groups(c_out), eps=eps, skip_scale=skip_scale)
        )

    def forward(self, x: Float[Tensor, "B C H W"], cond: Cond) -> Float[Tensor, "B D h w"]:
        y = self.conv0(self.resample(F.silu(self.norm0(x))))  # (B, D, h, w)
        y = self.conv1(self.dropout(F.silu(self.norm1(y, cond))))
        x = add_skip(self._skip(x), y, self.skip_scale)
        return x if self.attn is None else self.attn(x, cond)

    def _skip(self, x: Tensor) -> Tensor:
        if self.skip is None:
            return x
        if self.resample.pointwise_first:
            return self.resample(self.skip(x))
        return self.skip(self.resample(x))

    def sites(self, name: str, **sizes) -> Iterator[Site]:
        yield ConvSite(f"{name}.conv", self.norm1, channels=self.norm1.num_channels, **sizes)
        if self.attn is not None:
            yield self.attn.site(f"{name}.attn", **sizes)

"""The U-Net of IDDPM. Nichol & Dhariwal 2021, section 3 and appendix A.

Its convolution blocks are conditioned by ``ScaleShift``; the published baselines are this network with it.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorafusion.backbones.embed import Sinusoidal
from lorafusion.backbones.residual import ResidualBlock
from lorafusion.sites import Cond, Network, Site


class IDDPMUNet(Network):
    """Predicts eps, and the interpolation v of a learned variance, from ``(x, noise, step, label)``.

    resolution:        pixels a side, divisible by 2^(levels - 1).
    channels:          of the image.
    model_channels:    feature maps before they are multiplied; the embedding is 4 times as wide.
    channel_mult:      multiplier of each level, from full resolution down.
    num_blocks:        residual blocks a level; the decoder has one more.
    attn_resolutions:  at these sizes every block ends in attention; the bottleneck's first block always does.
    heads:             of each attention.
    dropout:           in the residual blocks, 0 .. 1.
    learned_variance:  the output has twice the image's channels: eps, then v.
    num_steps:         T of a discrete process; None = continuous.
    num_classes:       K; None = unconditional.
    """

    def __init__(
        self,
        resolution: int = 32,
        channels: int = 3,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        heads: int = 4,
        dropout: float = 0.0,
        learned_variance: bool = True,
        num_steps: int | None = None,
        num_classes: int | None = None,
    ):
        super().__init__()
        if resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"iddpm: {len(channel_mult)} levels halve the image {len(channel_mult) - 1} times, "
                f"and a resolution of {resolution} does not allow that"
            )
        self.resolution, self.channels, self.learned_variance = resolution, channels, learned_variance
        self.num_steps, self.num_classes = num_steps, num_classes
        self.noise_width, self.emb_width = model_channels, 4 * model_channels
        self.heads, self.dropout = heads, dropout
        self.embedding: Embedding | None = None
        self.conv_in = nn.Conv2d(channels, model_channels, 3, padding=1)
        self.enc, self.mid, self.dec = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        levels = [(resolution >> i, mult * model_channels) for i, mult in enumerate(channel_mult)]

        width, skips = model_channels, [model_channels]
        for size, out in levels:
            if size < resolution:
                self.enc[f"{size}_down"] = Downsample(width)
                skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{size}_block{i}"] = self._block(width, out, attention=size in attn_resolutions)
                width = out
                skips.append(width)
        self.mid["block0"] = self._block(width, width, attention=True)
        self.mid["block1"] = self._block(width, width, attention=False)
        for size, out in reversed(levels):
            if size > levels[-1][0]:
                self.dec[f"{size}_up"] = Upsample(width)
            for i in range(num_blocks + 1):
                self.dec[f"{size}_block{i}"] = self._block(width + skips.pop(), out, attention=size in attn_resolutions)
                width = out
        self.out_norm = nn.GroupNorm(_groups(width), width)
        self.out_conv = nn.Conv2d(width, channels * (2 if learned_variance else 1), 3, padding=1)
        _zero(self.out_conv)

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "#B"],
        step: Int[Tensor, "#B"] | None = None,
        label: Float[Tensor, "#B K"] | None = None,
        augment: Float[Tensor, "#B A"] | None = None,
    ) -> Float[Tensor, "B O H W"]:
        emb = None if self.embedding is None else self.embedding(noise, label)
        cond = Cond(noise, step, label, augment, emb)
        x = self.conv_in(x)
        skips = [x]
        for block in self.enc.values():
            x = block(x, cond)
            skips.append(x)
        for block in self.mid.values():
            x = block(x, cond)
        for name, block in self.dec.items():
            joins = "block" in name  # upsampling takes no skip
            x = block(torch.cat((x, skips.pop()), dim=1) if joins else x, cond)
        return self.out_conv(F.silu(self.out_norm(x)))

    def add_embedding(self) -> None:
        if self.embedding is None:
            self.embedding = Embedding(self.noise_width, self.emb_width, self.num_classes)

    def sites(self) -> Iterator[Site]:
        for name, block in self.named_modules():
            if isinstance(block, ResidualBlock):
                yield from block.sites(
                    name,
                    emb_width=self.emb_width,
                    num_steps=self.num_steps,
                    num_classes=self.num_classes,
                    affine=lambda out: nn.Linear(self.emb_width, out),
                )

    def _block(self, c_in: int, c_out: int, *, attention: bool) -> ResidualBlock:
        heads = self.heads if attention else None
        block = ResidualBlock(c_in, c_out, groups=_groups, dropout=self.dropout, heads=heads)
        _zero(block.conv1)
        return block


class Embedding(nn.Module):
    """silu(layer1(silu(layer0(wave(noise)))) + class(label)).

    The last silu is the one that the original has before the affine layer of every block: here it is taken once.
    """

    def __init__(self, noise_width: int, width: int, num_classes: int | None):
        super().__init__()
        self.noise = Sinusoidal(noise_width)
        self.layer0 = nn.Linear(noise_width, width)
        self.layer1 = nn.Linear(width, width)
        self.label = None
        if num_classes is not None:
            self.label = nn.Linear(num_classes, width, bias=False)
            torch.nn.init.normal_(self.label.weight)  # as nn.Embedding, whose rows are this matrix's columns

    def forward(self, noise: Tensor, label: Tensor | None) -> Float[Tensor, "B E"]:
        emb = self.layer1(F.silu(self.layer0(self.noise(noise))))
        if self.label is not None:
            if label is None:
                raise ValueError(f"iddpm: this network was built for {self.label.in_features} classes and got no label")
            emb = emb + self.label(label)
        return F.silu(emb)


class Downsample(nn.Conv2d):
    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"], cond: Cond) -> Float[Tensor, "B C H//2 W//2"]:
        return super().forward(x)


class Upsample(nn.Conv2d):
    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"], cond: Cond) -> Float[Tensor, "B C 2*H 2*W"]:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


def _groups(channels: int) -> int:
    """32, or for narrow networks the most that divide their channels."""
    return math.gcd(32, channels)


def _zero(conv: nn.Conv2d) -> None:
    for parameter in conv.parameters():
        torch.nn.init.zeros_(parameter)

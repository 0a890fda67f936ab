"""DDPM++, the "vp" U-Net of EDM, and by its options NCSN++, the "ve" one.

Karras et al. 2022 (EDM), appendix F.2, tables 1 and 7; the networks go back to Song et al. 2021. Their convolution
blocks are conditioned by ``Shift``; the published baselines are this network with it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorafusion.backbones.attention import AttentionBlock
from lorafusion.backbones.embed import Fourier, Sinusoidal
from lorafusion.backbones.resample import Down, Up
from lorafusion.backbones.residual import ResidualBlock
from lorafusion.sites import Cond, Network, Site

L = TypeVar("L", bound=nn.Linear | nn.Conv2d)


class DDPMpp(Network):
    """Predicts a map of the input's size from ``(x, noise, step, label, augment)``; noise is EDM's c_noise.

    resolution:        pixels a side, divisible by 2^(levels - 1).
    channels:          of the image.
    model_channels:    feature maps before they are multiplied; the embedding is 4 times as wide.
    channel_mult:      multiplier of each level, from full resolution down.
    num_blocks:        residual blocks a level; the decoder has one more.
    attn_resolutions:  at these sizes every encoder block and a level's last decoder block end in attention; the
                       bottleneck's first block always does.
    heads:             of each attention.
    dropout:           in the residual blocks, 0 .. 1.
    augment_dim:       length A of the augmentation labels (9 in EDM); 0 = none.
    num_steps:         T of a discrete process; None = continuous.
    num_classes:       K; None = unconditional.
    embedding:         of the noise level: 'positional' or random 'fourier' features (NCSN++).
    noise_mult:        width of that embedding in model_channels (NCSN++: 2).
    encoder:           'standard'; 'residual' = the features are also fed by a pyramid of strided convolutions (NCSN++);
                       'skip' = by the shrunken image.
    resample_filter:   [1, 1], or [1, 3, 3, 1] (NCSN++).
    class_embedding:   the shared embedding reads the class; False leaves it to the strategies that read it themselves.
    """

    def __init__(
        self,
        resolution: int = 32,
        channels: int = 3,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        heads: int = 1,
        dropout: float = 0.0,
        augment_dim: int = 0,
        num_steps: int | None = None,
        num_classes: int | None = None,
        embedding: Literal["positional", "fourier"] = "positional",
        noise_mult: int = 1,
        encoder: Literal["standard", "residual", "skip"] = "standard",
        resample_filter: Sequence[float] = (1, 1),
        class_embedding: bool = True,
    ):
        super().__init__()
        if resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"ddpmpp: {len(channel_mult)} levels halve the image {len(channel_mult) - 1} times, "
                f"and a resolution of {resolution} does not allow that"
            )
        if embedding not in ("positional", "fourier"):
            raise ValueError(f"ddpmpp: embedding must be 'positional' or 'fourier'; got {embedding!r}")
        if encoder not in ("standard", "residual", "skip"):
            raise ValueError(f"ddpmpp: encoder must be 'standard', 'residual' or 'skip'; got {encoder!r}")
        self.resolution, self.channels, self.augment_dim = resolution, channels, augment_dim
        self.num_steps, self.num_classes = num_steps, num_classes
        self.embedded_classes = num_classes if class_embedding else None
        self.emb_width, self.noise_width = 4 * model_channels, noise_mult * model_channels
        self.noise_features, self.taps = embedding, tuple(resample_filter)
        self.attn_resolutions, self.heads, self.dropout = tuple(attn_resolutions), heads, dropout
        self.embedding: Embedding | None = None

        widths = [mult * model_channels for mult in channel_mult]
        self.conv_in = nn.Conv2d(channels, model_channels, 3, padding=1)
        skips = self._add_encoder(model_channels, widths, num_blocks, encoder)
        self._add_decoder(widths, num_blocks, skips)
        self.out_norm = nn.GroupNorm(_groups(widths[0]), widths[0], eps=1e-6)
        self.out_conv = nn.Conv2d(widths[0], channels, 3, padding=1)
        self._init_weights()

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "#B"],
        step: Int[Tensor, "#B"] | None = None,
        label: Float[Tensor, "#B K"] | None = None,
        augment: Float[Tensor, "#B A"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        emb = None if self.embedding is None else self.embedding(noise, label, augment)
        cond = Cond(noise, step, label, augment, emb)
        image, x = x, self.conv_in(x)
        skips = [x]
        for name, block in self.enc.items():
            x = block(x, cond)
            if name in self.pyramid:
                x, image = self.pyramid[name](x, image)
            skips.append(x)
        for name, block in self.dec.items():
            joins = "block" in name  # the bottleneck and the upsampling blocks take no skip
            x = block(torch.cat((x, skips.pop()), dim=1) if joins else x, cond)
        return self.out_conv(F.silu(self.out_norm(x)))

    def add_embedding(self) -> None:
        if self.embedding is None:
            self.embedding = Embedding(
                self.noise_features, self.noise_width, self.emb_width, self.embedded_classes, self.augment_dim
            )

    def sites(self) -> Iterator[Site]:
        for name, block in self.named_modules():
            if isinstance(block, ResidualBlock):
                yield from block.sites(
                    name,
                    emb_width=self.emb_width,
                    num_steps=self.num_steps,
                    num_classes=self.num_classes,
                    affine=lambda out: _xavier(nn.Linear(self.emb_width, out)),
                )

    def _add_encoder(self, width: int, widths: list[int], num_blocks: int, encoder: str) -> list[int]:
        """Returns the channels of each skip, the input's first."""
        self.enc, self.pyramid = nn.ModuleDict(), nn.ModuleDict()
        skips, image_width = [width], self.channels
        for level, out in enumerate(widths):
            size = self.resolution >> level
            if level > 0:
                self.enc[f"{size}_down"] = self._block(width, width, resample=Down(self.taps))
                if encoder == "residual":
                    self.pyramid[f"{size}_down"] = ResidualPyramid(image_width, width, self.taps)
                    image_width = width
                elif encoder == "skip":
                    self.pyramid[f"{size}_down"] = SkipPyramid(image_width, width, self.taps)
                skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{size}_block{i}"] = self._block(width, out, attention=size in self.attn_resolutions)
                width = out
                skips.append(width)
        return skips

    def _add_decoder(self, widths: list[int], num_blocks: int, skips: list[int]) -> None:
        self.dec = nn.ModuleDict()
        size, width = self.resolution >> (len(widths) - 1), widths[-1]
        self.dec[f"{size}_in0"] = self._block(width, width, attention=True)
        self.dec[f"{size}_in1"] = self._block(width, width)
        for level, out in reversed([*enumerate(widths)]):
            size = self.resolution >> level
            if level < len(widths) - 1:
                self.dec[f"{size}_up"] = self._block(width, width, resample=Up(self.taps))
            for i in range(num_blocks + 1):
                attention = i == num_blocks and size in self.attn_resolutions
                self.dec[f"{size}_block{i}"] = self._block(width + skips.pop(), out, attention=attention)
                width = out

    def _block(
        self, c_in: int, c_out: int, *, attention: bool = False, resample: Up | Down | None = None
    ) -> ResidualBlock:
        return ResidualBlock(
            c_in,
            c_out,
            groups=_groups,
            eps=1e-6,
            dropout=self.dropout,
            skip_scale=math.sqrt(0.5),
            resample=resample,
            heads=self.heads if attention else None,
        )

    def _init_weights(self) -> None:
        """EDM's: what ends a branch starts near zero, attention's input layer smaller than the rest."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _xavier(module)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                _xavier(module.conv1, 1e-5)
            elif isinstance(module, AttentionBlock):
                _xavier(module.qkv, math.sqrt(0.2))
                _xavier(module.proj, 1e-5)
        _xavier(self.out_conv, 1e-5)


class Embedding(nn.Module):
    """silu(layer1(silu(layer0(wave(noise) + class(sqrt(K) label) + augment(augment)))))."""

    def __init__(self, features: str, noise_width: int, width: int, num_classes: int | None, augment_dim: int):
        super().__init__()
        self.noise = Fourier(noise_width) if features == "fourier" else Sinusoidal(noise_width, endpoint=True)
        self.label = None if num_classes is None else _xavier(nn.Linear(num_classes, noise_width))
        self.augment = _xavier(nn.Linear(augment_dim, noise_width, bias=False)) if augment_dim else None
        self.layer0 = _xavier(nn.Linear(noise_width, width))
        self.layer1 = _xavier(nn.Linear(width, width))

    def forward(self, noise: Tensor, label: Tensor | None, augment: Tensor | None) -> Float[Tensor, "B E"]:
        emb = self.noise(noise)  # (B, noise_width)
        if self.label is not None:
            if label is None:
                raise ValueError(
                    f"ddpmpp: this network was built for {self.label.in_features} classes and got no label"
                )
            emb = emb + self.label(label * math.sqrt(self.label.in_features))
        if self.augment is not None and augment is not None:
            emb = emb + self.augment(augment)
        return F.silu(self.layer1(F.silu(self.layer0(emb))))


class ResidualPyramid(nn.Module):
    """(x, image) -> twice (x + down(conv(image))) / sqrt(2): the pyramid carries features."""

    def __init__(self, c_in: int, c_out: int, taps: Sequence[float]):
        super().__init__()
        self.down = Down(taps, padded=True)
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1 + self.down.padding)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        x = (x + self.down(self.conv(image))) * math.sqrt(0.5)
        return x, x


class SkipPyramid(nn.Module):
    """(x, image) -> (x + conv(down(image)), down(image)): the pyramid carries the image."""

    def __init__(self, c_in: int, c_out: int, taps: Sequence[float]):
        super().__init__()
        self.down = Down(taps)
        self.conv = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        image = self.down(image)
        return x + self.conv(image), image


def _groups(channels: int) -> int:
    return max(1, min(32, channels // 4))


def _xavier(layer: L, gain: float = 1.0) -> L:
    torch.nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)
    return layer

"""Nano: a tiny U-Net of three scales, the proof of concept of Choi et al. 2024 on MNIST.

After dataflowr's teaching U-Net, with a right sinusoidal embedding and optional attention: without it and at 32 px,
1 channel, it has the 437,532 trainable parameters of the original.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorafusion.backbones.attention import AttentionBlock
from lorafusion.backbones.embed import Sinusoidal
from lorafusion.sites import Cond, ConvSite, LayerNorm, Network, Site


class NanoUNet(Network):
    """Predicts a map of the input's size from ``(x, noise, step, label)``.

    resolution:        pixels a side, divisible by 8: the layer norms run over (C, H, W), so it is fixed.
    channels:          of the image.
    widths:            feature maps at the three scales; the last is the bottleneck's too.
    attn_resolutions:  stages of these sizes end in attention; [] = the original network.
    num_steps:         T of a discrete process; None = continuous.
    num_classes:       K; None = unconditional.
    noise_scale:       multiplies the noise level before its embedding (see Sinusoidal).
    class_embedding:   the shared embedding reads the class; False leaves it to the strategies that read it themselves.
    """

    emb_width = 100
    attends_at = "attn_resolutions"

    def __init__(
        self,
        resolution: int = 32,
        channels: int = 1,
        widths: Sequence[int] = (10, 20, 40),
        attn_resolutions: Sequence[int] = (8, 4),
        num_steps: int | None = None,
        num_classes: int | None = None,
        noise_scale: float = 1.0,
        class_embedding: bool = True,
    ):
        super().__init__()
        if resolution < 8 or resolution % 8:
            raise ValueError(f"nano halves its image three times: resolution must be a multiple of 8, got {resolution}")
        self.resolution, self.channels = resolution, channels
        self.num_steps, self.num_classes, self.noise_scale = num_steps, num_classes, noise_scale
        self.embedded_classes = num_classes if class_embedding else None
        self.noise_embed: Sinusoidal | None = None
        self.class_embed: nn.Linear | None = None
        w0, w1, w2 = widths
        sizes = [resolution, resolution // 2, resolution // 4, resolution // 8]

        def stage(size: int, *widths: int) -> Stage:
            return Stage(size, widths, attention=size in attn_resolutions)

        enc = ((channels, w0, w0, w0), (w0, w1, w1, w1), (w1, w2, w2, w2))
        self.enc = nn.ModuleList(stage(size, *widths) for size, widths in zip(sizes, enc, strict=False))
        self.down = nn.ModuleList(nn.Conv2d(w, w, 4, stride=2, padding=1) for w in (w0, w1, w2))
        self.mid = stage(sizes[3], w2, w1, w1, w2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(w, w, 4, stride=2, padding=1) for w in (w2, w1, w0))
        self.dec = nn.ModuleList(
            stage(size, 2 * first, first, *rest)
            for size, first, *rest in ((sizes[2], w2, w1, w1), (sizes[1], w1, w0, w0), (sizes[0], w0, w0, w0))
        )
        self.out = nn.Conv2d(w0, channels, 3, padding=1)

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "#B"],
        step: Int[Tensor, "#B"] | None = None,
        label: Float[Tensor, "#B K"] | None = None,
        augment: Float[Tensor, "#B A"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        cond = Cond(noise, step, label, augment, self.embed(noise, label))
        skips = []
        for stage, down in zip(self.enc, self.down, strict=True):
            x = stage(x, cond)
            skips.append(x)
            x = down(x)
        x = self.mid(x, cond)
        for up, stage in zip(self.up, self.dec, strict=True):
            x = stage(torch.cat((skips.pop(), up(x)), dim=1), cond)
        return self.out(x)

    def add_embedding(self) -> None:
        if self.noise_embed is None:
            self.noise_embed = Sinusoidal(self.emb_width, scale=self.noise_scale)
            if self.embedded_classes is not None:
                self.class_embed = nn.Linear(self.embedded_classes, self.emb_width, bias=False)

    def embed(self, noise: Tensor, label: Tensor | None) -> Float[Tensor, "B E"] | None:
        if self.noise_embed is None:
            return None
        emb = self.noise_embed(noise)  # (B, E)
        if self.class_embed is not None:
            if label is None:
                raise ValueError(f"nano: this network was built for {self.num_classes} classes and got no label")
            emb = emb + self.class_embed(label)
        return emb

    def sites(self) -> Iterator[Site]:
        stages: dict[str, Any] = {f"enc.{i}": stage for i, stage in enumerate(self.enc)}
        stages |= {"mid": self.mid} | {f"dec.{i}": stage for i, stage in enumerate(self.dec)}
        for name, stage in stages.items():
            yield from stage.sites(
                name,
                emb_width=self.emb_width,
                num_steps=self.num_steps,
                num_classes=self.num_classes,
                affine=self._affine,
            )

    def _affine(self, out: int) -> nn.Module:
        """The original conditions every stage through a small MLP of its own."""
        return nn.Sequential(nn.Linear(self.emb_width, out), nn.SiLU(), nn.Linear(out, out))


class Stage(nn.Module):
    """Units of [LayerNorm - conv 3x3 - SiLU], then attention where asked; its condition enters at its input.

    widths:  channels before the first unit and after each unit.
    """

    def __init__(self, size: int, widths: Sequence[int], *, attention: bool):
        super().__init__()
        self.norm = LayerNorm([widths[0], size, size])
        self.norms = nn.ModuleList(nn.LayerNorm([w, size, size]) for w in widths[1:-1])
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.attn = AttentionBlock(widths[-1], groups=1) if attention else None

    def forward(self, x: Float[Tensor, "B C H W"], cond: Cond) -> Float[Tensor, "B D H W"]:
        first, *rest = self.convs
        x = F.silu(first(self.norm(x, cond)))
        for norm, conv in zip(self.norms, rest, strict=True):
            x = F.silu(conv(norm(x)))
        return x if self.attn is None else self.attn(x, cond)

    def sites(self, name: str, **sizes) -> Iterator[Site]:
        yield ConvSite(f"{name}.conv", self.norm, channels=self.norm.normalized_shape[0], **sizes)
        if self.attn is not None:
            yield self.attn.site(f"{name}.attn", **sizes)

"""EDM's augmentation: flips and an affine map of each training image, told to the network as 9 labels, so that samples
drawn with labels 0 stay free of it. Karras et al. 2022, appendix F.2; its pieces and the resampling go back to Karras
et al. 2020 (StyleGAN2-ADA), appendix B.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lorafusion.draws import Draws

LABELS = 9
SYM6 = (  # the low-pass filter of the symlet with 6 vanishing moments: Daubechies 1992, chapter 8
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_REACH = len(SYM6) // 4  # how far the filter reaches to each side, in pixels: its taps are half a pixel apart


class Augment:
    """p:  probability of each change of an image, 0 .. 1 (CIFAR-10 0.12, FFHQ 0.15). Mirroring left-right is exempt:
    half of the images are mirrored whatever p, unless p is 0.
    """

    labels: int = LABELS

    def __init__(self, p: float = 0.12):
        if not 0 <= p <= 1:
            raise ValueError(f"augment: p must be 0 .. 1; got {p}")
        self.p = p

    @torch.no_grad()
    def __call__(
        self, image: Float[Tensor, "B C R R"], draws: Draws
    ) -> tuple[Float[Tensor, "B C R R"], Float[Tensor, "B 9"]]:
        """The changed images and their labels; an image's depend on its own draws alone."""
        changes = draw(draws, self.p, image.dtype)
        return changes.apply(image), changes.labels()


@dataclass(frozen=True)
class Changes:
    """What is done to each image, in this order; 0 is nothing.

    mirror_x, mirror_y:  left-right, top-bottom.
    scale:               w: enlarged by 2^(w / 5).
    angle:               rotated by so many radians, counter-clockwise.
    stretch, axis:       w: enlarged by 2^(w / 5) along the axis, at so many radians, and shrunk as much across it.
    shift_x, shift_y:    w: moved by w / 8 of the image's width.
    """

    mirror_x: Bool[Tensor, "B"]
    mirror_y: Bool[Tensor, "B"]
    scale: Float[Tensor, "B"]
    angle: Float[Tensor, "B"]
    stretch: Float[Tensor, "B"]
    axis: Float[Tensor, "B"]
    shift_x: Float[Tensor, "B"]
    shift_y: Float[Tensor, "B"]

    def labels(self) -> Float[Tensor, "B 9"]:
        """What the network is told. (A stretch by -w at angle r reads as one by w at r + pi.)"""
        turn = (self.angle.cos() - 1, self.angle.sin())
        stretch = (self.stretch * self.axis.cos(), self.stretch * self.axis.sin())
        mirror = (self.mirror_x.to(self.scale.dtype), self.mirror_y.to(self.scale.dtype))
        return torch.stack((*mirror, self.scale, *turn, *stretch, self.shift_x, self.shift_y), dim=1)

    def apply(self, image: Float[Tensor, "B C R R"]) -> Float[Tensor, "B C R R"]:
        image = torch.where(self.mirror_x[:, None, None, None], image.flip(3), image)
        image = torch.where(self.mirror_y[:, None, None, None], image.flip(2), image)
        parts = (self.scale, self.angle, self.stretch, self.shift_x, self.shift_y)
        moved = torch.stack(parts).ne(0).any(0).nonzero()[:, 0]
        if len(moved) == 0:
            return image
        with torch.autocast(image.device.type, enabled=False):
            maps = self.inverse(image.shape[-1])[moved].split(64)  # at a time, for warping takes 40 times an image
            warped = [warp(some, at) for some, at in zip(image[moved].split(64), maps, strict=True)]
        return image.index_copy(0, moved, torch.cat(warped))

    def inverse(self, resolution: int) -> Float[Tensor, "B 2 3"]:
        """Pixel of the changed image -> pixel of the image, both (x, y, 1) counted from the centre."""
        shift = torch.stack((self.shift_x, self.shift_y), dim=1)[:, :, None] * (resolution / 8)  # (B, 2, 1)
        along = 2 ** (self.stretch / 5)
        linear = _diagonal(2 ** (-self.scale / 5)) @ _rotation(self.angle)
        linear = linear @ _rotation(-self.axis) @ _diagonal(1 / along, along) @ _rotation(self.axis)  # (B, 2, 2)
        return torch.cat((linear, -linear @ shift), dim=2)


def draw(draws: Draws, p: float, dtype: torch.dtype) -> Changes:
    """Each change with probability ``p``."""

    def coin(probability: float) -> Bool[Tensor, "B"]:
        return draws.uniform(dtype=dtype) < probability

    def sometimes(value: Float[Tensor, "B"], probability: float = p) -> Float[Tensor, "B"]:
        return value * coin(probability)

    def normal() -> Float[Tensor, "B"]:
        return draws.normal(1, dtype=dtype)[:, 0]

    def angle() -> Float[Tensor, "B"]:
        return (draws.uniform(dtype=dtype) * 2 - 1) * math.pi

    shifted = coin(p)
    return Changes(
        mirror_x=coin(0.5) & (p > 0),
        mirror_y=coin(0.5) & coin(p),
        scale=sometimes(normal()),
        angle=sometimes(angle()),
        stretch=sometimes(normal()),
        axis=sometimes(angle(), 0.5),
        shift_x=normal() * shifted,
        shift_y=normal() * shifted,
    )


def warp(x: Float[Tensor, "B C R R"], inverse: Float[Tensor, "B 2 3"]) -> Float[Tensor, "B C R R"]:
    """Each image seen through its map, reflected at its borders, without aliasing: sampled at twice the resolution.

    Each image is reflected as far as its own map reaches and is 0 beyond, whatever its neighbours in the batch need.
    """
    resolution = x.shape[-1]
    pad = resolution - 1
    before, after = _margins(inverse, resolution)
    x = F.pad(x, (pad, pad, pad, pad), mode="reflect")  # (B, C, side, side)
    x = _keep(x, pad - before, pad + resolution + after)
    x = _keep(_upsampled(x), 2 * (pad - before), 2 * (pad + resolution + after))
    n = 2 * (resolution + 2 * _REACH)
    u = (torch.arange(n, device=x.device, dtype=x.dtype) + 1 - n / 2) / 2  # in pixels, from the centre
    at = torch.stack((*torch.meshgrid(u, u, indexing="xy"), torch.ones(n, n, device=x.device, dtype=x.dtype)), dim=-1)
    at = torch.einsum("bik,yxk->byxi", inverse, at)  # (B, n, n, 2)
    at = (2 * at - 0.5) / (x.shape[-1] / 2)  # in -1 .. 1 over the enlarged image
    return _downsampled(F.grid_sample(x, at, mode="bilinear", padding_mode="zeros", align_corners=False))


def _margins(inverse: Float[Tensor, "B 2 3"], resolution: int) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    """Pixels beyond the image that its corners, as mapped, and the two filters reach: before and after, in x and y."""
    half = (resolution - 1) / 2
    corners = half * torch.tensor([[-1, 1, 1, -1], [-1, -1, 1, 1], [1 / half, 1 / half, 1 / half, 1 / half]])
    at = inverse @ corners.to(inverse)  # (B, 2, 4)
    beyond = torch.stack(((-at).amax(2), at.amax(2))) - half + 2 * _REACH
    before, after = beyond.clamp(0, resolution - 1).ceil()
    return before, after


def _keep(
    x: Float[Tensor, "B C S S"], start: Float[Tensor, "B 2"], end: Float[Tensor, "B 2"]
) -> Float[Tensor, "B C S S"]:
    """0 outside columns start[:, 0] .. end[:, 0] and rows start[:, 1] .. end[:, 1]."""
    k = torch.arange(x.shape[-1], device=x.device)
    inside = (k >= start[..., None]) & (k < end[..., None])  # (B, 2, S)
    return x * (inside[:, 0, None, :] & inside[:, 1, :, None])[:, None]


def _upsampled(x: Float[Tensor, "B C S S"]) -> Tensor:
    """(B, C, 2 S, 2 S)"""
    b, c, size, _ = x.shape
    spread = x.new_zeros(b, c, 2 * size, 2 * size)
    spread[:, :, ::2, ::2] = x
    row = x.new_tensor(SYM6).flip(0).expand(c, 1, 1, -1)
    half = len(SYM6) // 2
    x = F.conv2d(spread[:, :, :-1, :-1], row, padding=(0, half), groups=c)
    return F.conv2d(x, row.transpose(2, 3), padding=(half, 0), groups=c)


def _downsampled(x: Float[Tensor, "B C N N"]) -> Tensor:
    """(B, C, R, R), R = N / 2 less the reach of the filter on every side."""
    c, row = x.shape[1], x.new_tensor(SYM6).expand(x.shape[1], 1, 1, -1)
    half = len(SYM6) // 2 - 1
    x = F.conv2d(x, row, stride=(1, 2), padding=(0, half), groups=c)
    x = F.conv2d(x, row.transpose(2, 3), stride=(2, 1), padding=(half, 0), groups=c)
    return x[:, :, _REACH:-_REACH, _REACH:-_REACH]


def _diagonal(x: Float[Tensor, "B"], y: Float[Tensor, "B"] | None = None) -> Float[Tensor, "B 2 2"]:
    return torch.diag_embed(torch.stack((x, x if y is None else y), dim=1))


def _rotation(angle: Float[Tensor, "B"]) -> Float[Tensor, "B 2 2"]:
    c, s = angle.cos(), angle.sin()
    return torch.stack((torch.stack((c, -s), dim=1), torch.stack((s, c), dim=1)), dim=1)

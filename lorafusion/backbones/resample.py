"""Resampling a feature map by two with a separable filter, as DDPM++ ([1, 1]) and NCSN++ ([1, 3, 3, 1]) do.

Borders are padded with zeros. With [1, 1] no pixel is shared: down is the mean of 2 x 2 pixels, up repeats a pixel.
``pointwise_first`` says that a 1 x 1 convolution may stand before the resampling just as well, and is cheaper there.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Keep(nn.Module):
    """Null object: the same size."""

    pointwise_first = False

    def forward(self, x: Tensor) -> Tensor:
        return x


class Filtered(nn.Module):
    """taps:  of the separable filter, an even number of them; normalized to sum 1."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = (1, 1)):
        super().__init__()
        if len(taps) < 2 or len(taps) % 2:
            raise ValueError(f"a filter that resamples by two has an even number of taps; got {list(taps)}")
        f = torch.tensor([*taps], dtype=torch.get_default_dtype())
        self.box = len(taps) == 2 and taps[0] == taps[1]
        self.padding = len(taps) // 2 - 1
        self.register_buffer("kernel", (f[:, None] * f / f.sum() ** 2)[None, None], persistent=False)


class Down(Filtered):
    """Filter, then keep every second pixel: (B, C, H, W) -> (B, C, H/2, W/2).

    padded:  the caller has padded the input with ``padding`` zeros on every side already.
    """

    pointwise_first = False  # after it there are 4 times fewer pixels

    def __init__(self, taps: Sequence[float] = (1, 1), *, padded: bool = False):
        super().__init__(taps)
        self.pad = 0 if padded else self.padding

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        if self.box:
            return F.avg_pool2d(x, 2)
        kernel = self.kernel.expand(x.shape[1], -1, -1, -1)  # (C, 1, k, k)
        return F.conv2d(x, kernel, stride=2, padding=self.pad, groups=x.shape[1])


class Up(Filtered):
    """Put zeros between the pixels, then filter with gain 4: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, taps: Sequence[float] = (1, 1)):
        super().__init__(taps)
        self.pointwise_first = self.box  # other filters fade a bias out at the borders

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
        if self.box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        kernel = 4 * self.kernel.expand(x.shape[1], -1, -1, -1)  # (C, 1, k, k)
        return F.conv_transpose2d(x, kernel, stride=2, padding=self.padding, groups=x.shape[1])

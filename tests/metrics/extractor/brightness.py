"""A user's own network, without weights to learn: six features, and four classes by which quarter is brightest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Brightness(nn.Module):
    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quarters = self.gain * F.adaptive_avg_pool2d(x.mean(dim=1, keepdim=True), 2).flatten(1)  # (B, 4)
        spread = x.flatten(1).std(dim=1, keepdim=True)
        edges = (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(dim=1, keepdim=True)
        return torch.cat((quarters, spread, edges), dim=1), quarters


class Features(Brightness):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


class NoModule:
    pass

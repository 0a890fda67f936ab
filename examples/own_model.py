"""Drop-in conditioning in a model of one's own: here a tiny denoiser of points on a spiral, told of the noise level.

python examples/own_model.py --steps 2000
"""

import argparse

import torch
from torch import nn

import lorafusion as lf


class Denoiser(nn.Module):
    """It predicts the noise in a point, and is not told how much there is: drop-in tells it."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.enter, self.middle = nn.Linear(2, width), nn.Linear(width, width)
        self.leave = nn.Linear(width, 2)

    def forward(self, x, sigma):
        return self.leave(self.middle(self.enter(x).relu()).relu())


def loss_of(model: nn.Module, generator: torch.Generator) -> torch.Tensor:
    angle = 3 * torch.pi * torch.rand(256, 1, generator=generator)
    points = torch.cat((angle.cos(), angle.sin()), 1) * angle / 9  # (256, 2), on a spiral
    sigma = torch.rand(256, generator=generator) * 2
    noise = torch.randn(points.shape, generator=generator)
    return (model(points + sigma[:, None] * noise, sigma) - noise).square().mean()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=2000)
args = parser.parse_args()
for name in ("plain", "drop-in"):
    torch.manual_seed(0)
    model = Denoiser()
    if name == "drop-in":
        handle = lf.drop_in(
            model,
            lf.UCLoRA(rank=4, num_bases=8),
            targets="enter|middle",  # or a function: lambda name, layer: ...
            read_cond=lambda call: lf.Given(noise=call["sigma"]),  # what the call says, by its arguments' names
            noise_scale=100,  # the embedding's waves are made for numbers up to 1000
        )
    optimizer, draws, losses = torch.optim.Adam(model.parameters(), 1e-3), torch.Generator().manual_seed(0), []
    for _ in range(args.steps):
        loss = loss_of(model, draws)
        loss.backward()
        optimizer.step(), optimizer.zero_grad(), losses.append(loss.item())
    last = losses[-max(1, args.steps // 5) :]
    print(f"{name}: loss of the last fifth {sum(last) / len(last):.4f}")

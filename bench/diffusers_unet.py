"""Our DDPM++ beside diffusers' UNet2DModel of the nearest size: parameters, operations and time of each.

python bench/diffusers_unet.py --width 64 --batch 4
"""

import argparse
from collections.abc import Callable

import abab
import counters
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.shift import Shift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 64), ("batch", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    print(abab.machine())
    torch.manual_seed(0)
    ours = Conditioning([Shift()]).attach(DDPMpp(model_channels=args.width))
    width = 2 * args.width
    theirs = UNet2DModel(
        sample_size=32,
        block_out_channels=(width, width, width),
        layers_per_block=4,
        attention_head_dim=width,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    x = torch.randn(args.batch, 3, 32, 32)
    last = x.to(memory_format=torch.channels_last)
    nets: dict[str, tuple[nn.Module, Tensor, Callable[[Tensor], Tensor]]] = {
        "UNet2DModel": (theirs, x, lambda x: theirs(x, torch.zeros(len(x))).sample),
        "DDPM++": (ours.to(memory_format=torch.channels_last), last, lambda x: ours(x, torch.zeros(len(x)))),
    }
    for train in (False, True):
        steps = {name: step(net, x, call, train) for name, (net, x, call) in nets.items()}
        for name, (net, *_) in nets.items():
            cost = counters.count(steps[name])
            size = sum(p.numel() for p in net.parameters()) / 1e6
            print(f"{name}: {size:.2f} M parameters, {cost.flops / args.batch / 1e9:.2f} GFLOP, {cost.calls} calls")
        abab.show("forward and backward" if train else "forward", abab.abab(steps, check=lambda out, expected: None))


def step(net: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor], train: bool) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            call(x)

    def forward_and_backward() -> None:
        net.zero_grad()
        call(x).square().mean().backward()

    return forward_and_backward if train else forward


if __name__ == "__main__":
    main()

"""What LoRA conditioning adds to a network: operations, operator calls and time, sampling and training.

python bench/conditioning.py                 by m, r, batch and resolution; narrow and full DDPM++, and IDDPM
python bench/conditioning.py --width 32      narrow networks alone, where calls weigh most
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import abab
import counters
import torch
from rich.live import Live
from rich.table import Table

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.sites import Network


@dataclass(frozen=True)
class Size:
    width: int = 32
    batch: int = 4
    resolution: int = 32
    num_bases: int = 18
    rank: int = 4

    def __str__(self) -> str:
        return f"{self.width} ch, batch {self.batch}, {self.resolution} px, m {self.num_bases}, r {self.rank}"


NARROW = [
    Size(),
    Size(num_bases=9),
    Size(num_bases=36),
    Size(rank=2),
    Size(rank=8),
    Size(batch=2),
    Size(batch=16),
    Size(batch=2, resolution=64),
]
FULL = [Size(width=128, batch=2)]


def ddpmpp(size: Size, lora: bool) -> Network:
    net = DDPMpp(resolution=size.resolution, model_channels=size.width, dropout=0.13)
    return Conditioning([Shift()], [UCLoRA(rank=size.rank, num_bases=size.num_bases)] if lora else []).attach(net)


def iddpm(size: Size, lora: bool) -> Network:
    net = IDDPMUNet(resolution=size.resolution, model_channels=size.width, dropout=0.3, num_steps=4001)
    attn = [TimeLoRA(rank=size.rank, num_bases=size.num_bases)] if lora else []
    return Conditioning([ScaleShift()], attn).attach(net)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, choices=(32, 128), help="only networks of this width")
    args = parser.parse_args()
    sizes = [size for size in NARROW + FULL if args.width in (None, size.width)]
    print(abab.machine())
    compare("DDPM++ with UC-LoRA beside DDPM++", ddpmpp, sizes)
    compare("IDDPM with TimeLoRA beside IDDPM", iddpm, [Size(s.width, s.batch, num_bases=11) for s in sizes[::8]])


def compare(title: str, make: Callable[[Size, bool], Network], sizes: list[Size]) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("", "work", "operations", "calls", "time", "of all rounds"):
        table.add_column(column, justify="left" if column in ("", "work") else "right")
    with Live(table, refresh_per_second=1):  # a row as soon as it is measured
        for size in sizes:
            for work, train in (("sampling", False), ("training", True)):
                variants = {name: step(make, size, lora, train) for name, lora in (("base", False), ("lora", True))}
                base, lora = (counters.count(variant) for variant in variants.values())
                time = abab.abab(variants, rtol=1e-3, atol=1e-4)["lora"]  # a fresh update is zero: the same output
                spread = f"{time.low:.3f} .. {time.high:.3f}"
                calls = f"{base.calls} -> {lora.calls}"
                table.add_row(str(size), work, f"{lora.flops / base.flops:.4f}", calls, f"{time.ratio:.3f}", spread)


def step(make: Callable[[Size, bool], Network], size: Size, lora: bool, train: bool) -> Callable[[], torch.Tensor]:
    """A forward of samples that share their noise level, or forward and backward of samples that do not."""
    torch.manual_seed(0)
    net = make(size, False)
    if lora:
        with_lora = make(size, True)
        with_lora.load_state_dict(net.state_dict(), strict=False)
        net = with_lora
    net = net.to(memory_format=torch.channels_last).train(train)
    x = torch.randn(size.batch, 3, size.resolution, size.resolution).to(memory_format=torch.channels_last)
    levels = torch.arange(size.batch if train else 1)

    def sampling() -> torch.Tensor:
        with torch.no_grad():
            return net(x, levels / 10, levels)

    def training() -> torch.Tensor:
        net.zero_grad()
        torch.manual_seed(0)  # dropout
        loss = net(x, levels / 10, levels).square().mean()
        loss.backward()
        return loss

    return training if train else sampling


if __name__ == "__main__":
    main()

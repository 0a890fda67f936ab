"""What each conditioning costs nano: training step and sampling forward beside the unconditioned network.

python bench/nano.py --batch 64 --resolution 32
"""

import argparse
from collections.abc import Callable
from functools import partial

import abab
import torch
from counters import count
from rich.console import Console
from rich.table import Table

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.ada_ln import AdaLN
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.draws import Draws
from lorafusion.processes.ddpm import DDPM

STRATEGIES = {
    "none": {},
    "shift": {"conv": [Shift()]},
    "scale_shift": {"conv": [ScaleShift()]},
    "ada_ln": {"attn": [AdaLN()]},
    "time_lora": {"attn": [TimeLoRA()]},
    "class_lora": {"attn": [ClassLoRA()]},
    "uc_lora": {"attn": [UCLoRA()]},
    "shift + uc_lora": {"conv": [Shift()], "attn": [UCLoRA()]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--resolution", type=int, default=32)
    args = parser.parse_args()
    print(abab.machine())
    nets = {name: build(args.resolution, **strategies) for name, strategies in STRATEGIES.items()}
    for title, work in (("sampling forward", forward), ("training step", step)):
        variants = {name: partial(work, net, args.batch) for name, net in nets.items()}
        title = f"nano, {args.batch} images of {args.resolution} px: {title}"
        # Outputs differ by design: each conditioning is another function.
        abab.show(title, abab.abab(variants, check=lambda out, expected: None))
        counters(title, variants)


def build(resolution: int, **strategies: list) -> NanoUNet:
    torch.manual_seed(0)
    classes = 10 if any(isinstance(s, ClassLoRA) for s in strategies.get("attn", [])) else None
    return Conditioning(**strategies).attach(NanoUNet(resolution, num_steps=1000, num_classes=classes))


def images(net: NanoUNet, batch: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    label = None if net.num_classes is None else torch.eye(10)[torch.arange(batch) % 10]
    return torch.zeros(batch, 1, net.resolution, net.resolution), label


def forward(net: NanoUNet, batch: int) -> torch.Tensor:
    """As in sampling: one noise level for all images."""
    x, label = images(net, batch)
    t = torch.tensor([500])
    with torch.no_grad():
        return net(x, t.float(), t, label)


def step(net: NanoUNet, batch: int) -> torch.Tensor:
    x, label = images(net, batch)
    net.zero_grad()
    loss = DDPM(1000).loss(net, x, Draws(0, torch.arange(batch)), label).mean()
    loss.backward()
    return loss


def counters(title: str, variants: dict[str, Callable[[], object]]) -> None:
    table = Table(title=f"{title}: counters", title_justify="left")
    for column in ("variant", "GFLOP", "ratio", "aten calls", "ratio"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    counts = {name: count(work) for name, work in variants.items()}
    base = next(iter(counts.values()))
    for name, c in counts.items():
        flops = (f"{c.flops / 1e9:.3f}", f"{c.flops / base.flops:.3f}")
        table.add_row(name, *flops, f"{c.calls:,}", f"{c.calls / base.calls:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Parameters and multiply-adds of a denoiser by part: the base network, its embedding, what conditions it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from lorafusion.conditioning import Conditioning
from lorafusion.files import write_text
from lorafusion.sites import Network

PARTS = ("base", "embedding", "conv conditioning", "attention conditioning")


@dataclass(frozen=True)
class Size:
    """parameters: trainable. macs: multiply-adds of one forward pass on one image (matrix products, convolutions)."""

    parameters: int
    macs: int

    def __sub__(self, other: "Size") -> "Size":
        return Size(self.parameters - other.parameters, self.macs - other.macs)


def profile(cfg: DictConfig) -> None:
    parts = by_part(cfg)
    total = whole(parts)
    table = Table(title=f"{cfg.name}: one image of {cfg.data.channels} x {cfg.data.resolution} x {cfg.data.resolution}")
    for column in ("part", "parameters", "of base", "multiply-adds", "of base"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    base = parts["base"]
    for name, size in [*parts.items(), ("all", total)]:
        parameters = (f"{size.parameters:,}", f"{size.parameters / base.parameters:.2%}")
        macs = (f"{size.macs:,}", f"{size.macs / base.macs:.2%}")
        table.add_row(name, *parameters, *macs, end_section=name == PARTS[-1])
    Console().print(table)
    print(json.dumps(summary(parts)))


def write_size(cfg: DictConfig, file: Path) -> None:
    """The summary of a run's network as JSON; a network that cannot be measured does not stop the run."""
    try:
        parts = by_part(cfg)
    except Exception as error:  # a network of the user's own may do what the meta device cannot
        print(f"{file.name} is not written, the network cannot be measured: {' '.join(str(error).split())[:200]}")
        return
    write_text(file, json.dumps(summary(parts), indent=2) + "\n")


def summary(parts: dict[str, Size]) -> dict[str, Any]:
    total = whole(parts)
    return {
        "parameters": total.parameters,
        "trainable": total.parameters,
        "macs_per_image": total.macs,
        "parts": {name: {"parameters": s.parameters, "macs_per_image": s.macs} for name, s in parts.items()},
    }


def whole(parts: dict[str, Size]) -> Size:
    return Size(sum(p.parameters for p in parts.values()), sum(p.macs for p in parts.values()))


def by_part(cfg: DictConfig) -> dict[str, Size]:
    """What each part adds, found by building the network without it. The same network is not built twice."""

    def build(*, embedding: bool, **conditioning: list) -> Size:
        with torch.device("meta"):
            net = instantiate(cfg.backbone, _convert_="all")
            Conditioning(**conditioning).attach(net)
            if embedding:
                net.add_embedding()
        return measure(net, cfg.data.channels, cfg.data.resolution)

    full = instantiate(cfg.conditioning, _convert_="all")
    embedding = any(s.needs_emb for s in (*full.conv, *full.attn))
    base = build(embedding=False)
    embedded = build(embedding=True) if embedding else base
    conv = build(embedding=embedding, conv=full.conv) if full.conv else embedded
    both = build(embedding=embedding, conv=full.conv, attn=full.attn) if full.attn else conv
    return dict(zip(PARTS, (base, embedded - base, conv - embedded, both - conv), strict=True))


def measure(net: Network, channels: int, resolution: int) -> Size:
    """Counted on the meta device: no memory, no arithmetic. Two images, for what one condition shares is merged."""
    net = net.to("meta").eval()
    label = None if net.num_classes is None else torch.zeros(2, net.num_classes, device="meta")
    augment = getattr(net, "augment_dim", 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(
            torch.zeros(2, channels, resolution, resolution, device="meta"),
            torch.zeros(2, device="meta"),
            None if net.num_steps is None else torch.zeros(2, dtype=torch.long, device="meta"),
            label,
            torch.zeros(2, augment, device="meta") if augment else None,
        )
    return Size(sum(p.numel() for p in net.parameters() if p.requires_grad), counter.get_total_flops() // 4)

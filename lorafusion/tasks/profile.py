"""Parameters and multiply-adds of a denoiser by part: the base network, its embedding, what conditions it."""

import json
from dataclasses import dataclass

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from lorafusion.conditioning import Conditioning
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
    total = Size(sum(p.parameters for p in parts.values()), sum(p.macs for p in parts.values()))
    table = Table(title=f"{cfg.name}: one image of {cfg.data.channels} x {cfg.data.resolution} x {cfg.data.resolution}")
    for column in ("part", "parameters", "of base", "multiply-adds", "of base"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    base = parts["base"]
    for name, size in [*parts.items(), ("all", total)]:
        parameters = (f"{size.parameters:,}", f"{size.parameters / base.parameters:.2%}")
        macs = (f"{size.macs:,}", f"{size.macs / base.macs:.2%}")
        table.add_row(name, *parameters, *macs, end_section=name == PARTS[-1])
    Console().print(table)
    summary = {
        "parameters": total.parameters,
        "trainable": total.parameters,
        "macs_per_image": total.macs,
        "parts": {name: {"parameters": s.parameters, "macs_per_image": s.macs} for name, s in parts.items()},
    }
    print(json.dumps(summary))


def by_part(cfg: DictConfig) -> dict[str, Size]:
    """What each part adds, found by building the network without it."""

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
    embedded = build(embedding=embedding)
    conv = build(embedding=embedding, conv=full.conv)
    both = build(embedding=embedding, conv=full.conv, attn=full.attn)
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

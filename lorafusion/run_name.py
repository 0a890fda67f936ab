"""What a run is called, and what sets it apart from others: read from its configuration alone.

Names are of use wherever runs are told apart: in Weights & Biases, in reports, in tables of sweeps. They say what was
chosen, not where or when it ran, so two runs of equal choices have equal names.
"""

from collections.abc import Iterator, Mapping
from typing import Any


def run_name(cfg: Mapping[str, Any]) -> str:
    """cifar10-edm-shift-uc_lora-r4-s0: data, denoiser and process, what conditions convolutions, attention, rank, seed.

    cfg: a run's configuration, composed or as its config.yaml holds it. What it lacks, as an export's does the seed,
    the name lacks too.
    """
    chosen = choices(cfg)
    parts = [
        f"{chosen['data']}_cond" if chosen["data"] and chosen["class_conditional"] else chosen["data"],
        chosen["denoiser"],
        chosen["process"] if chosen["process"] != chosen["denoiser"] else None,
        chosen["conditioning"],
        None if chosen["rank"] is None else f"r{chosen['rank']}",
        None if chosen["seed"] is None else f"s{chosen['seed']}",
    ]
    return "-".join(str(part) for part in parts if part is not None)


def choices(cfg: Mapping[str, Any]) -> dict[str, str | int | bool | None]:
    """The choices that runs are grouped and compared by; None where ``cfg`` does not say.

    conditioning:  what is attached to convolutions and then to attention, joined by '-', strategies that add up by '+';
                   'none' where nothing is.
    rank:          of the low-rank updates; '4+8' where they differ.
    """
    conv, attn = ([*_chosen(_at(cfg, "conditioning", kind))] for kind in ("conv", "attn"))
    conditioning = "-".join("+".join(name for name, _ in kind) for kind in (conv, attn) if kind) or "none"
    ranks = [*dict.fromkeys(node["rank"] for _, node in (*conv, *attn) if node.get("rank") is not None)]
    return {
        "data": _at(cfg, "data", "name"),
        "class_conditional": _at(cfg, "backbone", "num_classes") is not None,
        "denoiser": _at(cfg, "denoiser", "name"),
        "process": _module(cfg, "process"),
        "backbone": _module(cfg, "backbone"),
        "conv": "+".join(name for name, _ in conv) or "none",
        "attn": "+".join(name for name, _ in attn) or "none",
        "conditioning": conditioning,
        "rank": None if not ranks else ranks[0] if len(ranks) == 1 else "+".join(map(str, ranks)),
        "seed": _at(cfg, "seed"),
    }


def _chosen(nodes: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What was chosen of a group; an experiment may also hold settings for what was not."""
    for name, node in (nodes or {}).items():
        if "_target_" in node:
            yield str(name), node


def _module(cfg: Mapping[str, Any], group: str) -> str | None:
    """The file that a class stands in, which has its option's name: lorafusion.processes.edm.EDM -> edm."""
    target = _at(cfg, group, "_target_")
    return None if target is None else str(target).split(".")[-2:][0]


def _at(cfg: Any, *path: str) -> Any:
    for key in path:
        cfg = cfg.get(key) if isinstance(cfg, Mapping) else None
    return cfg

"""Folders of runs that nobody ran, with the files that runs write."""

import csv
import json
import math
import random
import struct
import zlib
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

PARTS = {
    "shift": {"_target_": "lorafusion.conditioning.conv.shift.Shift"},
    "ada_ln": {"_target_": "lorafusion.conditioning.attn.ada_ln.AdaLN", "gate": False},
    "time_lora": {"_target_": "lorafusion.conditioning.attn.time_lora.TimeLoRA", "rank": 4, "num_bases": 11},
    "uc_lora": {"_target_": "lorafusion.conditioning.attn.uc_lora.UCLoRA", "rank": 4, "num_bases": 18},
}


def config(folder: Path, conv: str = "shift", attn: str = "uc_lora", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Resolved, as a run writes it: what repeats what, and names its folder. changes: `data__name=...` is nested."""
    conditioning = {
        "_target_": "lorafusion.conditioning.Conditioning",
        "conv": {} if conv == "none" else {conv: dict(PARTS[conv])},
        "attn": {} if attn == "none" else {attn: dict(PARTS[attn])},
    }
    made = {
        "seed": seed,
        "images": 100_000,
        "name": f"mnist_5k-nano-12345{seed}",
        "conditioning": conditioning,
        "paths": {"run_dir": str(folder), "data_dir": "/data"},
        "data": {"name": "mnist_5k", "resolution": 32, "channels": 1, "batch_size": 128, "seed": seed},
        "process": {"_target_": "lorafusion.processes.ddpm.DDPM", "num_steps": 1000},
        "backbone": {"_target_": "lorafusion.backbones.nano.NanoUNet", "widths": [10, 20, 40]},
        "denoiser": {"conditioning": conditioning, "seed": seed, "optimizer": {"lr": 0.001}},
        "callbacks": {"curves": {"folder": str(folder)}, "ema": {"halflife_images": 500_000, "decay": None}},
        "logger": {"csv": {"folder": str(folder)}},
        "task": {"_target_": "lorafusion.tasks.train.train"},
    }
    for path, value in changes.items():
        *above, last = path.split("__")
        node = made
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return made


def run(
    folder: Path,
    *,
    rows: list[dict[str, Any]] | None = None,
    status: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    metrics: dict[str, dict[str, Any]] | None = None,
    grids: tuple[int, ...] = (),
    **settings: Any,
) -> Path:
    """metrics: file below the folder -> its content. rows: of metrics.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.dump(config(folder, **settings), sort_keys=False, Dumper=Plain))
    if rows is not None:
        write_csv(folder / "metrics.csv", rows)
    for name, content in {"status.json": status, "model.json": model, **(metrics or {})}.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    for nimg in grids:
        write_grid(folder / "samples" / f"grid_{nimg:012d}.png", seed=nimg)
    return folder


class Plain(yaml.SafeDumper):
    """Repeats what repeats, as OmegaConf does, instead of pointing at it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def write_grid(file: Path, side: int = 65, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(blobs(side, seed))


@cache
def blobs(side: int, seed: int) -> bytes:
    """A grey PNG."""
    draw = random.Random(seed)
    spots = [(draw.uniform(4, 28), draw.uniform(4, 28), draw.uniform(3, 9)) for _ in range(4)]

    def grey(x: int, y: int) -> int:
        x, y = x % 33, y % 33
        return (
            255 if 32 in (x, y) else int(max(255 * math.exp(-((x - a) ** 2 + (y - b) ** 2) / c) for a, b, c in spots))
        )

    raw = b"".join(b"\0" + bytes(grey(x, y) for x in range(side)) for y in range(side))
    parts = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def curve(floor: float, seed: int, images: int = 100_000, every: int = 2_000, validate: int = 20_000) -> list[dict]:
    """Rows of a metrics.csv: a loss that falls to about ``floor``, noisy."""
    draw = random.Random(seed)
    rows = []
    for nimg in range(every, images + 1, every):
        level = floor * (1 + 12 * math.exp(-nimg / 6_000) + 0.8 * math.exp(-nimg / 40_000))
        rows.append({"step": nimg // 128, "nimg": float(nimg), "loss": level * draw.uniform(0.9, 1.12)})
        if nimg % validate == 0:
            rows.append({"step": nimg // 128, "nimg": float(nimg), "val_loss": level * draw.uniform(0.995, 1.006)})
    return rows


def sweep(folder: Path, images: int = 100_000) -> list[Path]:
    """conv {none, shift} x attn {none, ada_ln, time_lora, uc_lora} x 2 seeds; one run failed, one was killed."""
    floors = {"none": 0.041, "ada_ln": 0.0332, "time_lora": 0.0321, "uc_lora": 0.0314}
    extra = {"none": (0, 0), "ada_ln": (20_800, 20_800), "time_lora": (16_900, 88_000), "uc_lora": (27_300, 61_000)}
    made = []
    for job, (conv, attn, seed) in enumerate(product(("none", "shift"), floors, (0, 1))):
        draw = random.Random(job)
        floor = floors[attn] * (0.93 if conv == "shift" else 1) * draw.uniform(0.995, 1.005)
        until = 46_000 if job == 5 else 72_000 if job == 11 else images
        state = {5: "failed", 11: "running"}.get(job, "finished")
        error = "loss is not finite at 46,080 images seen: nan" if state == "failed" else None
        seconds = until / draw.uniform(310, 420)
        rows = curve(floor, job, until)
        distance = floor * draw.uniform(2400, 2600) - 60
        entry = {"samples": {"n": 256}, "recognised": min(0.99, 0.02 / floor + draw.uniform(0, 0.05)),
                 "classifier_frechet_distance": distance, "rows": {}}  # fmt: skip
        parameters = 437_532 + extra[attn][0] + (31_000 if conv == "shift" else 0)
        made.append(
            run(
                folder / str(job),
                rows=rows,
                status={
                    "state": state,
                    "error": error,
                    "started": "2026-11-27T06:00:00",
                    "ended": None,
                    "seconds": seconds,
                    "images_seen": until,
                    "images": images,
                },
                model={"parameters": parameters, "macs_per_image": 21_400_000 + extra[attn][1] * 7, "parts": {}},
                metrics={f"samples/{images:012d}/metrics.json": {"digits": entry}} if state == "finished" else {},
                grids=tuple(range(20_000, until + 1, 40_000)),
                conv=conv,
                attn=attn,
                seed=seed,
            )
        )
    (folder / "multirun.yaml").write_text("hydra: {}\n")
    return made

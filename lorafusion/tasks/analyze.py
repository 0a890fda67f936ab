"""Look at what the conditioning of trained runs does: pictures, csv, npz, and analysis.json, which says what of.

An analysis's ``looks_at`` says what it is given, and a file of that name how.
"""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from lorafusion.analysis import Found
from lorafusion.errors import UserError
from lorafusion.files import replacing, write_text
from lorafusion.tasks import analyze_images, analyze_layers, run_folder, weights

LOOK = {"layers": analyze_layers.look, "images": analyze_images.look}
RECORD = "analysis.json"
SUFFIXES = {".png", ".csv", ".npz"}


def analyze(cfg: DictConfig) -> None:
    analysis = instantiate(cfg.analysis, _convert_="all")
    paths = checkpoints(cfg.ckpt)
    found = LOOK[analysis.looks_at](cfg, analysis, paths)
    out = (
        Path(cfg.out).expanduser().absolute() if cfg.out else run_folder.results(paths[0], f"analysis/{analysis.name}")
    )
    with run_folder.locked(out, "out"):
        for old in made_before(out):
            (out / old).unlink(missing_ok=True)
        files = write(found, analysis.name, out)
        about = {"analysis": analysis.name, **describe(cfg, paths), "files": files, "versions": run_folder.versions()}
        write_text(out / RECORD, json.dumps(_finite({**about, **found.numbers}), indent=2) + "\n")
    console = Console()
    for said in found.said:
        console.print(said, soft_wrap=isinstance(said, str))
    print(out)


def checkpoints(ckpt: str | ListConfig) -> list[Path]:
    """Of one run or several. Raises UserError for none."""
    paths = [run_folder.find_checkpoint(one) for one in (ckpt if isinstance(ckpt, ListConfig) else [ckpt])]
    if not paths:
        raise UserError("ckpt=[]: name at least one run")
    return paths


def describe(cfg: DictConfig, paths: list[Path]) -> dict[str, Any]:
    """All that decides what is found."""
    settings = OmegaConf.to_container(cfg.analysis, resolve=True)
    assert isinstance(settings, dict)
    files = [{"file": path.name, "sha256": weights.sha256(path)} for path in paths]
    return {"checkpoints": files, "ema": cfg.ema, "settings": {k: v for k, v in settings.items() if k != "_target_"}}


def made_before(out: Path) -> list[str]:
    """The files of the analysis whose record lies there: what the next one does not make must not stay beside it."""
    try:
        files = json.loads((out / RECORD).read_text())["files"]
        return [f for f in files if Path(f).name == f and Path(f).suffix in SUFFIXES]  # somebody may have edited it
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write(found: Found, name: str, out: Path) -> list[str]:
    """<picture>.png, <table>.csv, <name>.npz; returns their names."""
    for picture, figure in found.pictures.items():
        with replacing(out / f"{picture}.png") as temporary:
            figure.savefig(temporary, dpi=figure.dpi, format="png")
    for table, rows in found.tables.items():
        with replacing(out / f"{table}.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
    with replacing(out / f"{name}.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **found.arrays)  # pyright: ignore[reportArgumentType]
    return [*(f"{p}.png" for p in found.pictures), *(f"{t}.csv" for t in found.tables), f"{name}.npz"]


def _finite(value: Any) -> Any:
    """JSON knows neither infinity nor what is no number: both become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""One run: everything its folder says about it, and what there could not be read."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from lorafusion.report import offline_wandb, read
from lorafusion.report.measured import Value, measured
from lorafusion.report.read import Column, Damaged
from lorafusion.report.settings import at, essence
from lorafusion.report.state import State, count, number, state_of

T = TypeVar("T")
COSTS = {"images_per_s", "memory_mib", "lr"}  # columns of metrics.csv that say how it was trained, not how well


@dataclass
class Run:
    """folder:    absolute. name: how it is called among those compared.
    config:    of config.yaml, {} where there is none; text is the file as it is.
    history:   columns of metrics.csv, each over the images seen.
    values:    of metrics.json files.
    grids:     images seen -> picture of samples.
    problems:  what could not be read, each as "file reason".
    """

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    overrides: list[str] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=dict)
    state: State = field(default_factory=lambda: State("unfinished"))
    images_seen: int = 0
    images: int | None = None
    parameters: int | None = None
    macs: int | None = None
    history: dict[str, Column] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    grids: dict[int, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def essence(self) -> dict[str, Any]:
        return essence(self.config)

    @property
    def seed(self) -> int | None:
        return count(self.config.get("seed"))

    @property
    def title(self) -> str:
        """The name in its config, without the time of day that a default name ends with."""
        return re.sub(r"-\d{6}$", "", str(self.config.get("name") or "")) or self.folder.name

    def conditioning(self, kind: str) -> str:
        """kind: conv or attn. The strategies there; 'none', or '?' where no config says."""
        chosen = at(self.config, f"conditioning.{kind}")
        if not isinstance(chosen, dict):
            return "none" if isinstance(at(self.config, "conditioning"), dict) else "?"
        return " + ".join(map(str, chosen)) or "none"

    @property
    def data(self) -> str:
        name, side = at(self.config, "data.name"), at(self.config, "data.resolution")
        return "?" if name is None else f"{name}" if side is None else f"{name}, {side} px"

    @property
    def process(self) -> str:
        return str(at(self.config, "process._target_") or "?").rpartition(".")[2]

    def published(self, name: str) -> float | None:
        return number(at(self.config, f"paper.{name}"))

    @property
    def qualities(self) -> list[str]:
        """The columns of its history that say how good it is: neither costs nor deviations of others."""
        return [name for name in self.history if name not in COSTS and not name.endswith("_std")]

    @property
    def images_per_s(self) -> float | None:
        """The median of what was logged, else the whole run's."""
        logged = [value for _, value in self.history.get("images_per_s", []) if value > 0]
        if logged:
            return median(logged)
        return self.images_seen / self.state.seconds if self.state.seconds and self.images_seen else None


def load(folder: Path, name: str) -> Run:
    run = Run(folder, name)
    _try(run, "metrics.csv", lambda file: _history(run, file))
    if not (folder / "metrics.csv").exists():
        _try(run, "wandb", lambda file: _offline(run, file.parent))
    _try(run, "config.yaml", lambda file: _config(run, file))
    status = _try(run, "status.json", read.json_object) or {}
    size = _try(run, "model.json", read.json_object) or {}
    run.versions = _try(run, "versions.json", read.json_object) or {}
    run.overrides = (_try(run, "overrides.txt", read.text) or "").split("\n")
    run.overrides = [line for line in run.overrides if line.strip()]
    run.values, problems = measured(folder)
    run.problems += problems
    run.grids = _grids(folder / "samples")
    run.parameters, run.macs = count(size.get("parameters")), count(size.get("macs_per_image"))
    last = max((points[-1][0] for points in run.history.values() if points), default=0)
    run.images_seen = max(count(status.get("images_seen")) or 0, int(last))
    run.images = count(run.config.get("images")) or count(status.get("images"))
    run.state = state_of(folder, status, run.images_seen, run.images)
    return run


def _try(run: Run, file: str, reader: Callable[[Path], T]) -> T | None:
    """What a reader makes of a file of the run; where that is damaged, it is said in the run's problems."""
    try:
        return reader(run.folder / file)
    except Damaged as damage:
        run.problems.append(f"{file} {damage}")
        return None


def _config(run: Run, file: Path) -> None:
    run.text = read.text(file) or ""
    if not run.text and run.config:
        return  # W&B's serves
    if not run.text:
        raise Damaged("is missing" if not file.is_file() else "is empty")
    run.config = read.yaml_object(run.text)


def _history(run: Run, file: Path) -> None:
    run.history, left_out = read.history(file)
    run.problems += [f"metrics.csv {said}" for said in left_out[:3]]
    if len(left_out) > 3:
        run.problems.append(f"metrics.csv and {len(left_out) - 3} more lines")


def _offline(run: Run, folder: Path) -> None:
    run.history, run.config = offline_wandb.read(folder)


def _grids(folder: Path) -> dict[int, Path]:
    found = [(re.fullmatch(r"grid_(\d{1,15})\.png", file.name), file) for file in folder.glob("grid_*.png")]
    return {int(match[1]): file for match, file in sorted(found, key=lambda pair: pair[1].name) if match}

"""What an offline W&B run recorded, read back from its file by W&B's own inspector."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


@dataclass
class Recorded:
    file: Path
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, dict[str, Any]] = field(default_factory=dict)  # of define_metric, by name or pattern
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def logged(self, name: str) -> list[dict[str, Any]]:
        """The rows of the history that hold ``name``."""
        return [row for row in self.history if name in row]


def read_runs(folder: Path) -> list[Recorded]:
    """Of a run's folder, oldest first: one, and one more each time that the run went on."""
    return [read(file) for file in sorted((folder / "wandb").glob("*run-*/run-*.wandb"))]


def read(file: Path) -> Recorded:
    ask = [
        get_core_path(),
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        "--run-file",
        str(file),
        str(file.parent),
    ]
    lines = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()
    found = Recorded(file)
    for line in lines:
        record = json.loads(line)
        kind = record["type"]
        content = record.get(kind, {})
        if kind == "run":
            found.run = content
            found.config = content.get("config", {}).get("update", {})
        elif kind == "metric":
            found.axes[content.get("name") or content.get("glob_name")] = content
        elif kind == "history":
            found.history.append(content["item"])
        elif kind == "summary":
            found.summary |= content.get("update", {})
        elif kind == "files":
            found.files += [f["path"] for f in content["files"]]
        elif kind == "artifact":
            found.artifacts.append(content)
        elif kind == "exit":
            found.exit_code = content.get("exit_code", 0)
    return found

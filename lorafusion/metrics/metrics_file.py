"""metrics.json: what metrics made of some samples, or of a checkpoint, one entry a metric."""

import json
from pathlib import Path
from typing import Any

from lorafusion.files import write_text
from lorafusion.versions import versions

NAME = "metrics.json"


def record(folder: Path, metric: str, entry: dict[str, Any], subject: str) -> None:
    """Write ``entry`` under the metric's name, with the versions; other entries stay while their ``subject`` is equal.

    subject:  the key of ``entry`` that says what was judged.
    """
    kept = {name: e for name, e in read(folder).items() if e.get(subject) == entry[subject]}
    content = {**kept, metric: {**entry, "versions": versions()}}
    write_text(folder / NAME, json.dumps(content, indent=2) + "\n")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Metric -> its entry; {} where none was written yet, or it is not ours."""
    try:
        entries = json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}

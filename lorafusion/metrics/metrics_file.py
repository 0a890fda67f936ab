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
    try:
        entries = json.loads((folder / NAME).read_text())
        kept = {name: e for name, e in entries.items() if e[subject] == entry[subject]}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # none yet, or not ours
        kept = {}
    content = {**kept, metric: {**entry, "versions": versions()}}
    write_text(folder / NAME, json.dumps(content, indent=2) + "\n")

"""What metrics.json files say that a run's samples, or its model, are worth."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafusion.direction import more_is_better
from lorafusion.report.read import Damaged, json_object
from lorafusion.report.state import count

NAME = "metrics.json"
PLACES = (NAME, f"metrics/*/{NAME}", f"samples/*/{NAME}", f"samples/{NAME}")
# Numbers of an entry that are settings, parts of another number, or its uncertainty.
NOT_MEASURED = {
    "recognised_above",
    "prior",
    "total",
    "std",
    "error",
    "n",
    "seconds",
    "best",
    "guidance",
    "nfe",
    "images_seen",
}


@dataclass(frozen=True)
class Value:
    """One measured number.

    entry, name:  the metric that gave it, and what it is called there: digits, recognised.
    n:            images that were judged; None where that is not known.
    nimg:         images seen by the weights; None where that is not known.
    origin:       the file, below the run's folder.
    nfe:          evaluations of the network for a sample; None where that is not known.
    """

    entry: str
    name: str
    value: float
    n: int | None
    nimg: int | None
    origin: str
    nfe: int | None = None


def measured(folder: Path) -> tuple[list[Value], list[str]]:
    """Every value that a run's folder holds, the one to show of each (entry, name); and what could not be read."""
    best: dict[tuple[str, str], Value] = {}
    problems = []
    for file in sorted(file for place in PLACES for file in folder.glob(place)):
        origin = str(file.relative_to(folder))
        try:
            entries = json_object(file)
        except Damaged as damage:
            problems.append(f"{origin} {damage}")
            continue
        for value in _values(entries, origin):
            key = value.entry, value.name
            if key not in best or _rank(value) > _rank(best[key]):
                best[key] = value
    return list(best.values()), problems


def _rank(value: Value) -> tuple[int, int]:
    """The newest weights, judged by the most images, are shown."""
    return value.nimg or 0, value.n or 0


def _values(entries: dict[str, Any], origin: str) -> Iterator[Value]:
    for entry, content in entries.items():
        if not isinstance(content, dict):
            continue
        for name, found in _numbers(content).items():
            if isinstance(found, float) and name not in NOT_MEASURED:
                seen, nfe = _images_seen(content, origin), count(content.get("nfe"))
                yield Value(str(entry), str(name), found, _judged(content), seen, origin, nfe)


def _numbers(content: dict[str, Any]) -> dict[str, Any]:
    """Of several sets of samples the least distance, as papers print it, and the mean of what is better large."""
    least, mean = content.get("minimum"), content.get("mean")
    if not isinstance(least, dict) or not isinstance(mean, dict):
        return content
    return {**least, **{name: value for name, value in mean.items() if more_is_better(name)}}


def _judged(content: dict[str, Any]) -> int | None:
    for holder in (content, *(_first(content.get(key)) for key in ("samples", "all", "made"))):
        if isinstance(holder, dict) and (n := count(holder.get("n"))) is not None:
            return n
    return None


def _images_seen(content: dict[str, Any], origin: str) -> int | None:
    made = _first(content.get("made"))
    for holder in (content, content.get("checkpoint"), made.get("checkpoint") if isinstance(made, dict) else None):
        if isinstance(holder, dict) and (seen := count(holder.get("images_seen"))) is not None:
            return seen
    stem = Path(origin).parent.name
    return int(stem) if re.fullmatch(r"\d{1,15}", stem) else None


def _first(found: Any) -> Any:
    """Of a list of sets."""
    return found[0] if isinstance(found, list) and found else found

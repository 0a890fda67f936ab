"""Runs that are repeats of each other: the same settings but for the seed, with means over them."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from lorafusion.report.run import Run
from lorafusion.report.settings import differences, show


@dataclass(frozen=True)
class Mean:
    """spread: standard deviation over n > 1 runs, else None."""

    value: float
    spread: float | None
    n: int


@dataclass
class Group:
    """label: what tells it from the others; colour and dash: the numbers of its look in pictures."""

    runs: list[Run]
    label: str = ""
    colour: int = 0
    dash: int = 0

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def complete(self) -> list[Run]:
        """Those that have seen the most images: only what has gone equally far is averaged."""
        most = max(run.images_seen for run in self.runs)
        return [run for run in self.runs if run.images_seen >= 0.99 * most]

    @property
    def essence(self) -> dict[str, Any]:
        return self.first.essence

    @property
    def states(self) -> dict[str, int]:
        return Counter(run.state.name for run in self.runs)


def mean(values: Iterable[float | None]) -> Mean | None:
    """Of the values there are; None of none. One that is not finite makes the mean so."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if not all(map(math.isfinite, known)):
        return Mean(math.nan, None, len(known))
    return Mean(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """In order of conditioning, none first; runs without a config stand alone."""
    found: dict[str, Group] = {}
    for run in runs:
        key = repr(run.essence) if run.config else f"alone: {run.folder}"
        found.setdefault(key, Group([])).runs.append(run)
    groups = sorted(found.values(), key=_order)
    for group in groups:
        group.runs.sort(key=lambda run: (run.seed is None, run.seed))
    _style(groups)
    for group, label in zip(groups, _labels(groups), strict=True):
        group.label = label
    return groups


def _labels(groups: Sequence[Group]) -> list[str]:
    """The conditioning; where that does not tell all, the names; where they do not, also settings that differ."""
    labels = [conditioning(group.first) for group in groups]
    titles = [group.first.title for group in groups]
    for candidates in (labels, titles):
        if len({*candidates}) == len(groups):
            return candidates
    for difference in differences([group.essence for group in groups]):
        if difference.content is not None or difference.path.startswith("conditioning.conv"):
            continue
        said = [f"{difference.path.rpartition('.')[2]} {show(value)}" for value in difference.values]
        labels = [
            f"{label}, {more}" if labels.count(label) > 1 else label for label, more in zip(labels, said, strict=True)
        ]
        if len({*labels}) == len(groups):
            return labels
    return [
        f"{label} ({group.first.name})" if labels.count(label) > 1 else label
        for label, group in zip(labels, groups, strict=True)
    ]


def _order(group: Group) -> tuple:
    conv, attn = (group.first.conditioning(kind) for kind in ("conv", "attn"))
    return group.first.data == "?", group.first.data, conv != "none", conv, attn != "none", attn


def _style(groups: Sequence[Group]) -> None:
    """A colour for each kind of attention conditioning and a dash for each of convolutions, where that tells all."""
    convs, attns = ([g.first.conditioning(kind) for g in groups] for kind in ("conv", "attn"))
    pairs = list(zip(convs, attns, strict=True))
    kinds, dashes = (
        list(dict.fromkeys(sorted(attns, key=_none_first))),
        list(dict.fromkeys(sorted(convs, key=_none_first))),
    )
    tells = len({*pairs}) == len(pairs) and 1 < len(kinds) <= 8 and len(dashes) <= 3
    for k, (group, (conv, attn)) in enumerate(zip(groups, pairs, strict=True)):
        group.colour, group.dash = (kinds.index(attn), _dash(dashes, conv)) if tells else (k % 8, k // 8 % 3)


def _dash(dashes: list[str], conv: str) -> int:
    """The most conditioned is drawn solid."""
    return len(dashes) - 1 - dashes.index(conv)


def _none_first(name: str) -> tuple[bool, str]:
    return name != "none", name


def conditioning(run: Run) -> str:
    """'shift + uc_lora', 'no conditioning'; the folder's name where no config says."""
    parts = [run.conditioning(kind) for kind in ("conv", "attn")]
    if "?" in parts:
        return run.name
    return " + ".join(part for part in parts if part != "none") or "no conditioning"

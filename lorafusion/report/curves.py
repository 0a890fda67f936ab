"""Losses and metrics over images seen: a line for each group of repeats, a band of its standard deviation."""

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from markupsafe import Markup

from lorafusion.report.columns import title
from lorafusion.report.groups import Group, Mean, mean
from lorafusion.report.read import Column
from lorafusion.report.rivals import alike
from lorafusion.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, axis, element, frame, path, picture

BINS = 50  # of a curve that has more points than that
CROWDED = 0.4  # share of a picture's height
SETTLED = 0.2  # share of the images after which all of a curve is shown; before it may leave the top


@dataclass
class Curve:
    """points: images seen -> mean over the repeats that went furthest. short: curves of those that ended before."""

    number: int  # of the group
    group: Group
    points: list[tuple[float, Mean]]
    short: list[Column] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """data: what it shows as JSON, for who hovers over it. note: what is to be known of it."""

    title: str
    svg: Markup
    data: str
    note: str = ""


def curves(groups: Sequence[Group]) -> list[Picture]:
    """One picture of each column that was logged at two places or more, and of each kind of data."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.qualities)
    found = []
    for name in sorted(names, key=lambda name: (name != "val_loss", name != "loss", name)):
        for where, members in alike(name, groups).items():
            lines = [line for group in members if (line := _curve(name, groups.index(group), group))]
            if max((len(line.points) for line in lines), default=0) > 1:
                said = f"{title(name)}: {where}" if where else title(name)
                found.append(draw(said, lines))
                if crowded(lines):
                    found.append(draw(f"{said}, second half", lines, since=0.5))
    return found


def _curve(name: str, number: int, group: Group) -> Curve | None:
    whole = [run.history[name] for run in group.complete if name in run.history]
    others = [run.history[name] for run in group.runs if name in run.history and run not in group.complete]
    if not whole:
        return None
    if max(map(len, whole)) > BINS:
        end = max(points[-1][0] for points in whole)
        whole, others = [binned(points, end) for points in whole], [binned(points, end) for points in others]
    return Curve(number, group, means(whole), [finite(points) for points in others])


def means(columns: Sequence[Column]) -> list[tuple[float, Mean]]:
    """Over runs, at each place where one of them has a value."""
    at: dict[float, list[float]] = {}
    for x, y in (point for column in columns for point in column):
        at.setdefault(x, []).append(y)
    found = [(x, mean(values)) for x, values in sorted(at.items())]
    return [(x, m) for x, m in found if m and math.isfinite(m.value)]


def binned(points: Column, end: float, bins: int = BINS) -> Column:
    """The mean of each of equal stretches of 0 .. end, at its middle."""
    inside: dict[int, list[float]] = {}
    for x, y in points:
        inside.setdefault(min(bins - 1, int(x / end * bins)), []).append(y)
    return [((k + 0.5) * end / bins, fmean(values)) for k, values in sorted(inside.items())]


def finite(points: Column) -> Column:
    return [(x, y) for x, y in points if math.isfinite(y)]


def crowded(lines: Sequence[Curve]) -> bool:
    """Whether the ends of the curves lie so near each other in the whole picture that it takes another to see them."""
    ends = [line.points[-1][1].value for line in lines]
    _, y, _ = axes(lines, 0.0)
    inside = [sum(p >= 0.5 * axes(lines, 0.0)[0].high for p, _ in line.points) for line in lines]
    return len(lines) > 1 and max(inside) > 2 and abs(y(max(ends)) - y(min(ends))) < CROWDED * abs(y.end - y.start)


def draw(title: str, lines: Sequence[Curve], since: float = 0.0) -> Picture:
    """since: share of the images where the picture begins."""
    x, y, cut = axes(lines, since)
    clip = f"clip-{zlib.crc32(title.encode()):08x}"
    box = element("rect", x=LEFT, y=TOP, width=WIDTH - LEFT - RIGHT, height=HEIGHT - TOP - BOTTOM)
    parts = [element("clipPath", box, id=clip), frame(x, y, "images seen")]
    parts += [element("g", *_line(line, x, y), clip_path=f"url(#{clip})", data_group=line.number) for line in lines]
    data = {
        "x": [x.low, x.high, x.start, x.end],
        "lines": [[line.number, [[p, _round(m.value), _round(m.spread)] for p, m in line.points]] for line in lines],
    }
    note = "Steeper at the start than is shown." if cut and not since else ""
    return Picture(title, picture(*parts, label=f"{title} over images seen", class_="chart"), json.dumps(data), note)


def axes(lines: Sequence[Curve], since: float) -> tuple[Axis, Axis, bool]:
    """And whether a curve leaves the top."""
    end = max(line.points[-1][0] for line in lines)
    start = min(line.points[0][0] for line in lines)
    every = [(p, m.value + sign * (m.spread or 0)) for line in lines for p, m in line.points for sign in (-1, 1)]
    positive = all(m.value > 0 for line in lines for _, m in line.points)
    settled = [v for p, v in every if p >= max(SETTLED, since) * end and (v > 0 or not positive)]
    y = axis(settled, HEIGHT - BOTTOM, TOP, ratio=2.5)
    x = Axis(
        max(since * end, 0.0 if start < 0.3 * end else start), end if end > start else end + 1, LEFT, WIDTH - RIGHT
    )
    return x, y, any(v > y.high for _, v in every)


def _line(line: Curve, x: Axis, y: Axis) -> list[Markup]:
    look = f"c{line.group.colour} d{line.group.dash}"
    parts = []
    spread = [(p, m.value, m.spread) for p, m in line.points if m.spread is not None]
    if len(spread) > 1:
        above = [(x(p), y(v + s)) for p, v, s in spread]
        below = [(x(p), y(v - s)) for p, v, s in reversed(spread)]
        parts.append(element("path", class_=f"band {look}", d=path([*above, *below]) + "Z"))
    for points in line.short:
        if points:
            parts.append(element("path", class_=f"line short {look}", d=path((x(p), y(v)) for p, v in points)))
            end_x, end_y = x(points[-1][0]), y(points[-1][1])
            cross = f"M{end_x - 3.5:.1f} {end_y - 3.5:.1f}l7 7m0-7l-7 7"
            parts.append(element("path", class_=f"cross {look}", d=cross))
    parts.append(element("path", class_=f"line {look}", d=path((x(p), y(m.value)) for p, m in line.points)))
    if len(line.points) <= 12:
        parts += [element("circle", class_=f"dot {look}", cx=x(p), cy=y(m.value), r=2.6) for p, m in line.points]
    return parts


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")

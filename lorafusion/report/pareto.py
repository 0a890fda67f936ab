"""A metric against what it costs: a point for each group of repeats, and the front that no other group is below."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorafusion.report.columns import Column, direction, metrics
from lorafusion.report.curves import Picture
from lorafusion.report.groups import Group, mean
from lorafusion.report.rivals import mean_of, rivals
from lorafusion.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, axis, element, frame, picture

COSTS = (("parameters", "parameters"), ("macs", "multiply-adds of one image"))
GLYPH = 7.0, 12  # width and height of a letter of a label
# Where a label may stand, best first: (horizontal, vertical) steps from its point, and how it is anchored.
PLACES = (
    *((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)),
    *((across, up) for up in (-2, 2, -3, 3) for across in (0, 1, -1)),
)


@dataclass(frozen=True)
class Point:
    number: int  # of the group
    group: Group
    cost: float
    value: float
    spread: float | None


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)


def paretos(groups: Sequence[Group]) -> list[tuple[str, list[Picture]]]:
    """(metric, its pictures), of each metric and cost that at least two groups have."""
    found = []
    for column in metrics([run for group in groups for run in group.runs]):
        for where, members in rivals(column, groups).items():
            title = f"{column.title}: {where}" if where else column.title
            pictures = [
                draw(column, title, name, points)
                for cost, name in COSTS
                if len(points := _points(column, cost, members, groups)) > 1 and len({p.cost for p in points}) > 1
            ]
            if pictures:
                found.append((title, pictures))
    return found


def _points(column: Column, cost: str, members: Sequence[Group], groups: Sequence[Group]) -> list[Point]:
    points = []
    for group in members:
        value, price = mean_of(column, group), mean(getattr(run, cost) for run in group.runs)
        if value and price and math.isfinite(value.value):
            points.append(Point(groups.index(group), group, price.value, value.value, value.spread))
    return points


def front(points: Sequence[Point], best: object) -> list[Point]:
    """Those that no other point is as cheap as and better, or as good as and cheaper; by rising cost."""
    sign = -1 if best is max else 1
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, sign * p.value)):
        if not kept or sign * point.value < sign * kept[-1].value:
            kept.append(point)
    return kept


def draw(column: Column, title: str, cost: str, points: Sequence[Point]) -> Picture:
    x = axis([p.cost for p in points], LEFT, WIDTH - RIGHT, pad=0.12)
    ends = [p.value + sign * (p.spread or 0) for p in points for sign in (-1, 1)]
    y = axis([v for v in ends if v > 0 or min(p.value for p in points) <= 0], HEIGHT - BOTTOM, TOP, pad=0.1)
    best = front(points, direction(column))
    parts = [frame(x, y, cost), element("path", class_="front", d=steps(best, x, y, direction(column)))]
    places = labelled([(x(p.cost), y(p.value), p.group.label) for p in points])
    for point, (at, up, anchor) in zip(points, places, strict=True):
        look = f"c{point.group.colour} d{point.group.dash}"
        inside = [element("title", f"{point.group.label}: {point.value:.5g} at {point.cost:,.0f} {cost}")]
        if point.spread is not None:
            span = {"y1": y(point.value - point.spread), "y2": y(point.value + point.spread)}
            inside.append(element("line", class_=f"spread {look}", x1=x(point.cost), x2=x(point.cost), **span))
        inside.append(element("circle", class_=f"point {look}", cx=x(point.cost), cy=y(point.value), r=5.0))
        kind = "label best" if point in best else "label"
        inside.append(element("text", point.group.label, class_=kind, x=at, y=up, text_anchor=anchor))
        parts.append(element("g", *inside, data_group=point.number))
    return Picture(f"against {cost}", picture(*parts, label=f"{title} against {cost}", class_="chart pareto"), "")


def steps(best: Sequence[Point], x: Axis, y: Axis, better: object) -> str:
    """The border of what is reached at each cost, on to the right end."""
    at = [(x(p.cost), y(p.value)) for p in best]
    start = f"M{at[0][0]:.1f} {HEIGHT - BOTTOM if better is max else TOP}V{at[0][1]:.1f}"
    return start + "".join(f"H{a:.1f}V{b:.1f}" for a, b in at[1:]) + f"H{x.end:.1f}"


def labelled(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Where each point's text goes, (x, y, anchor): off the points and the other texts as far as that can be."""
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    inside = Box(LEFT, TOP - 6, WIDTH - 2, HEIGHT - BOTTOM)
    found = []
    for x, y, text in points:
        tried = [_place(x, y, text, *place) for place in PLACES]
        costs = [sum(box.overlap(b) for b in taken) + 3 * _outside(box, inside) + k for k, (box, _) in enumerate(tried)]
        box, spot = tried[costs.index(min(costs))]
        taken.append(box)
        found.append(spot)
    return found


def _place(x: float, y: float, text: str, across: int, up: int) -> tuple[Box, tuple[float, float, str]]:
    width, height = GLYPH[0] * len(text), GLYPH[1]
    at = x + across * (10 if up == 0 else 7)
    base = y + up * (height + 3) + 4
    left = {1: at, -1: at - width, 0: at - width / 2}[across]
    return Box(left, base - height + 2, left + width, base + 2), (
        at,
        base,
        {1: "start", -1: "end", 0: "middle"}[across],
    )


def _outside(box: Box, inside: Box) -> float:
    """The area of a box that is not in another."""
    return (box.right - box.left) * (box.bottom - box.top) - box.overlap(inside)

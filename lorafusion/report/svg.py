"""SVG in strings: elements, and the two axes of a plot. Colours and fonts are the style sheet's."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520, 330
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 12, 44  # margins around the plot

HUGE = 1e150  # an axis ends there at the latest: beyond, numbers overflow
FAR = 1e5  # pixels, of what lies beyond an axis


def element(name: str, *inside: str, **attributes: object) -> Markup:
    """``class_`` is class, ``data_x`` is data-x. What is inside is escaped unless it is markup."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{said}>") + Markup("").join(escape(part) for part in inside) + Markup(f"</{name}>")


def _short(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


@dataclass(frozen=True)
class Axis:
    """Values from low to high, or their logarithms, onto pixels from start to end. low < high."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = map(self._scaled, (self.low, self.high, value))
        at = self.start + (value - low) / (high - low) * (self.end - self.start)
        return min(max(at, -FAR), FAR)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the axis."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, most)


def axis(values: Sequence[float], start: float, end: float, pad: float = 0.06, ratio: float = 5.0) -> Axis:
    """Around finite values; logarithmic where they are positive and the largest is over ``ratio`` times the least."""
    low, high = (math.copysign(min(max(abs(v), 1 / HUGE), HUGE), v) if v else v for v in (min(values), max(values)))
    log = low > 0 and high / low > ratio
    if log:
        margin = (high / low) ** pad
        return Axis(low / margin, high * margin, start, end, log=True)
    margin = (high - low) * pad or abs(high) * pad or 1.0
    return Axis(low - margin, high + margin, start, end)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade, or decades alone where these are many; round numbers where there are too few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    found = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    return found if len(found) >= 3 else linear_ticks(low, high, 5)


def tick_text(value: float) -> str:
    """12000 -> 12 k, 0.05 -> 0.05."""
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.6g} {letter}".replace("-", "\N{MINUS SIGN}")
    return (f"{value:.6g}" if size >= 1e-4 or size == 0 else f"{value:.0e}").replace("-", "\N{MINUS SIGN}")


def frame(x: Axis, y: Axis, across: str) -> Markup:
    """Grid lines, ticks and their numbers, and what the horizontal axis is. What is up is the picture's title."""
    parts = []
    for value in y.ticks(5):
        at = y(value)
        parts.append(element("line", class_="gridline", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        parts.append(element("text", tick_text(value), class_="tick up", x=LEFT - 8, y=at + 4))
    for value in x.ticks(5):
        at = x(value)
        parts.append(element("line", class_="notch", x1=at, x2=at, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4))
        parts.append(element("text", tick_text(value), class_="tick", x=at, y=HEIGHT - BOTTOM + 19))
    parts.append(element("line", class_="base", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM))
    parts.append(element("text", across, class_="across", x=WIDTH - RIGHT, y=HEIGHT - 6))
    return Markup("").join(parts)


def picture(*inside: Markup, label: str, **attributes: object) -> Markup:
    return element("svg", *inside, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label, **attributes)

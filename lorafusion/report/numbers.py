"""Numbers as people read them: few digits, aligned in a column, thousands apart."""

import math
from collections.abc import Iterable
from statistics import median

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def decimals(values: Iterable[float], digits: int = 4) -> int:
    """Places behind the point that give a typical value of a column ``digits`` significant ones; 8 at most."""
    sizes = [abs(v) for v in values if v and math.isfinite(v)]
    return min(8, max(0, digits - 1 - math.floor(math.log10(median(sizes))))) if sizes else 0


def fixed(value: float | None, places: int, sign: bool = False) -> str:
    """12345.678 -> 12,345.68; with ``sign`` a plus too."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value).replace("-", MINUS)
    if value and (abs(value) >= 1e9 or abs(value) < 10**-places / 2):
        return f"{value:.3g}".replace("-", MINUS)
    return f"{value:{'+' if sign else ''},.{places}f}".replace("-", MINUS)


def whole(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}".replace("-", MINUS)


def short(value: float | None) -> str:
    """1234567 -> 1.23 M, of counts that are read for their size."""
    if value is None:
        return NONE
    for unit, letter in UNITS:
        if abs(value) >= unit * 0.9995:
            return f"{value / unit:#.3g}".rstrip(".") + f" {letter}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds -> 9.3 s, 4 min 05 s, 2 h 07 min, 3 d 04 h."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours == 0:
        return f"{m} min {s:02d} s"
    days, h = divmod(hours, 24)
    return f"{hours} h {m:02d} min" if days == 0 else f"{days} d {h:02d} h"

"""Colours: text is readable and lines are told apart, in light and dark, also by the colour-blind."""

import re
from itertools import combinations
from pathlib import Path

import pytest

import lorafusion.report

STYLE = (Path(lorafusion.report.__file__).parent / "style.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", re.search(rf"{start} \{{([^}}]*)\}}", STYLE)[1]))
    for start in (r"^:root", r'\n:root\[data-theme="dark"\]')
)
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLIND = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
}


def linear(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(a, b):
    """WCAG 2."""
    high, low = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(linear, (a, b))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """CIE L*a*b* of linear sRGB under D65."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    xyz = [
        sum(m * max(0.0, c) for m, c in zip(row, rgb, strict=True)) / w for row, w in zip(to_xyz, white, strict=True)
    ]
    x, y, z = (v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(a, b, matrix=None):
    def seen(colour):
        rgb = linear(colour)
        return lab(rgb if matrix is None else [sum(m * c for m, c in zip(row, rgb, strict=True)) for row in matrix])

    return sum((p - q) ** 2 for p, q in zip(seen(a), seen(b), strict=True)) ** 0.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable(theme):
    for ink in ("ink", "soft", "faint", "accent"):
        for back in ("back", "card", "hover"):
            assert contrast(theme[ink], theme[back]) >= 4.5, (ink, back)
    for state in ("good", "bad", "warn"):
        assert contrast(theme[f"{state}-ink"], theme[state]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_are_told_apart(theme):
    palette = [theme[f"p{k}"] for k in range(8)]
    assert all(contrast(colour, theme["card"]) >= 3 for colour in palette)
    for (k, a), (m, b) in combinations(enumerate(palette), 2):
        least = 25 if m < 5 else 12
        for matrix in (None, *BLIND.values()):
            assert difference(a, b, matrix) >= least, (k, m)


def test_dark_is_the_same_by_choice_and_by_the_system():
    system = re.search(r'not\(\[data-theme="light"\]\) \{([^}]*)\}', STYLE)[1]
    assert dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", system)) == DARK
    assert DARK.keys() == LIGHT.keys()

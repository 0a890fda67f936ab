"""Matrices of many layers as one picture, on one colour scale, and their curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lorafusion.analysis.axis import Axis

DPI = 110
_COLUMNS = 8  # maps side by side, at most
_GREY = "0.8"  # of what is not known


def squares(rows: Mapping[str, Mapping[str, Float[np.ndarray, "N N"]]], axis: Axis, says: str) -> Any:
    """One map a layer, both of its axes ``axis``; the maps of ``rows`` under each other, and a bar of the colours.

    rows:  what is written beside a row -> layer -> matrix; every row has the same layers.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    layers = [*next(iter(rows.values()))]
    blocks = -(-len(layers) // _COLUMNS)
    columns = -(-len(layers) // blocks)
    width, height = 1.25 * columns + 1.5, blocks * (1.22 * len(rows) + 0.32) + 0.55
    figure = Figure(figsize=(max(width, 4.5), height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.02, hspace=0.02)  # pyright: ignore
    axes = figure.subplots(blocks * len(rows), columns, sharex=True, sharey=True, squeeze=False)
    low, high = _scale([m for of_layer in rows.values() for m in of_layer.values()])
    drawn: Any = None
    for place in axes.flat:
        place.set_axis_off()
    for k, layer in enumerate(layers):
        for r, (row, of_layer) in enumerate(rows.items()):
            place = axes[k // columns * len(rows) + r, k % columns]
            place.set_axis_on()
            drawn = _map(place, of_layer[layer], axis, low, high)
            if r == 0:
                place.set_title(layer, fontsize=7.5, pad=3)
            if k % columns == 0:
                place.set_ylabel(row, fontsize=8, fontweight="bold")
            last = r == len(rows) - 1 and k + columns >= len(layers)
            place.tick_params(labelbottom=last, labelleft=k % columns == 0)
    figure.supxlabel(axis.label, fontsize=8)
    figure.supylabel(axis.label, fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.01, aspect=30)
    bar.set_label(says, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def layer_maps(layers: Sequence[str], maps: Mapping[str, Float[np.ndarray, "L N"]], axis: Axis) -> Any:
    """Side by side, each titled: a line a layer, a column a condition.

    Each has a scale of colours of its own, by square roots from 0, for layers differ tenfold.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    height = 0.2 * len(layers) + 1.3
    figure = Figure(figsize=(3.6 * len(maps) + 1.6, height), dpi=DPI, layout="constrained")
    for place, (title, values) in zip(
        figure.subplots(1, len(maps), sharey=True, squeeze=False).flat, maps.items(), strict=True
    ):
        high = float(np.max(values, where=np.isfinite(values), initial=0)) or 1.0
        extent = (*axis.edges, len(layers) - 0.5, -0.5)
        drawn = place.imshow(
            values, aspect="auto", interpolation="nearest", norm=PowerNorm(0.5, 0, high), extent=extent
        )
        place.set_xticks(*axis.ticks)
        place.set_yticks(range(len(layers)), layers)
        place.tick_params(labelsize=7, length=2)
        place.set_xlabel(axis.label, fontsize=8)
        place.set_title(title, fontsize=9)
        bar = figure.colorbar(drawn, ax=place, format=PercentFormatter(1, decimals=None if high > 0.02 else 1))
        bar.ax.tick_params(labelsize=7)
    return figure


def curves(x: Float[np.ndarray, "N"], lines: Mapping[str, Mapping[str, np.ndarray]], says_x: str, says_y: str) -> Any:
    """stage -> layer -> (N,): a thin line a layer, a thick one for their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for (stage, of_layer), colour in zip(lines.items(), ("0.45", "tab:blue")[-len(lines) :], strict=True):
        for y in of_layer.values():
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
        axes.plot(x, np.nanmean([*of_layer.values()], axis=0), color=colour, linewidth=2, label=stage)
    axes.set(xlabel=says_x, ylabel=says_y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _map(place: Any, matrix: Float[np.ndarray, "N N"], axis: Axis, low: float, high: float) -> Any:
    drawn = place.imshow(
        matrix,
        cmap=_colours(low),
        vmin=low,
        vmax=high,
        origin="lower",
        extent=(*axis.edges, *axis.edges),
        aspect="equal",
    )
    place.set_xticks(*axis.ticks)
    place.set_yticks(*axis.ticks)
    place.tick_params(labelsize=6.5, length=2, pad=1.5)
    return drawn


def _scale(matrices: list[np.ndarray]) -> tuple[float, float]:
    """-1 .. 1 where anything is clearly negative, else 0 .. 1."""
    lowest = min((float(np.nanmin(m)) for m in matrices if not np.isnan(m).all()), default=0.0)
    return (-1.0 if lowest < -0.05 else 0.0), 1.0


def _colours(low: float) -> Any:
    from matplotlib import colormaps

    return colormaps["RdBu_r" if low < 0 else "viridis"].with_extremes(bad=_GREY)

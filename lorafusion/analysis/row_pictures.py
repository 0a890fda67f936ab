"""Pictures of rows of images: a captioned sheet, pixel by pixel, and a classifier's probabilities along the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from lorafusion.pictures import grid

DPI = 100
_SIDE = 56  # pixels that an image should have at least, about
_LEFT, _RIGHT, _TITLE, _CAPTION, _GAP = 40, 10, 22, 18, 6  # pixels


def image_sheet(rows: Sequence[Any], images: Mapping[str, UInt8[np.ndarray, "rows N S H W C"]]) -> Any:
    """For each row its title, the values of a, and below these a block of images for each run: a seed a line."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    blocks = {run: [_block(some[r]) for r in range(len(rows))] for run, some in images.items()}
    high, wide = next(iter(blocks.values()))[0].shape[:2]
    width = _LEFT + wide + _RIGHT
    height = len(rows) * (_TITLE + _CAPTION + len(blocks) * (high + _GAP)) + _GAP
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    y = 0
    for r, row in enumerate(rows):
        y += _TITLE
        figure.text((_LEFT + wide / 2) / width, 1 - y / height, row.title, ha="center", va="bottom", fontsize=10)
        y += _CAPTION
        figure.text((_LEFT - 6) / width, 1 - (y - 4) / height, "a =", ha="right", va="bottom", fontsize=8)
        for k, (run, of_run) in enumerate(blocks.items()):
            axes = figure.add_axes((_LEFT / width, 1 - (y + high) / height, wide / width, high / height))
            axes.imshow(of_run[r], aspect="auto", interpolation="nearest", cmap="gray", vmin=0, vmax=255)
            axes.set_yticks([])
            axes.set_ylabel(run, fontsize=9)
            _caption(axes, row.place, wide, first=k == 0)
            y += high + _GAP
    return figure


def confidence_curves(rows: Sequence[Any], seen: Mapping[str, Float[np.ndarray, "rows N S K"]]) -> Any:
    """One pair of axes a row; a colour a class, a style a run; the line is the mean over the seeds. Of one run alone a
    band shows the middle half of them.
    """
    from matplotlib.figure import Figure

    columns = min(len(rows), 3)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 2.9 * lines + 0.5), dpi=DPI, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for place in axes.flat[len(rows) :]:
        place.set_axis_off()
    for r, (row, place) in enumerate(zip(rows, axes.flat, strict=False)):
        for k, (run, p) in enumerate(seen.items()):
            for c, follows in enumerate(row.follows):
                y, colour = p[r, :, :, follows], f"C{c}"
                style = ("-", "--", ":", "-.")[k % 4]
                place.plot(row.place, y.mean(axis=0), style, color=colour, label=f"class {follows}, {run}")
                if len(y) > 1 and len(seen) == 1:
                    low, high = np.quantile(y, (0.25, 0.75), axis=0)
                    place.fill_between(row.place, low, high, color=colour, alpha=0.1, linewidth=0)
        place.set_title(row.title, fontsize=10)
        place.set(xlabel="a", ylim=(-0.03, 1.03))
        place.grid(alpha=0.3)
        place.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
    for place in axes[:, 0]:
        place.set_ylabel("probability, as the classifier sees it", fontsize=8)
    return figure


def _block(images: UInt8[np.ndarray, "N S H W C"]) -> UInt8[np.ndarray, "h w 3"]:
    """Seeds below each other, enlarged by a whole factor."""
    scale = max(1, round(_SIDE / images.shape[2]))
    flat = images.reshape(-1, *images.shape[2:]).repeat(scale, 1).repeat(scale, 2)
    sheet = grid(flat, columns=images.shape[1], gap=2)
    return sheet if sheet.shape[2] == 3 else sheet.repeat(3, 2)


def _caption(axes: Any, place: np.ndarray, wide: int, first: bool) -> None:
    """Values of a above the middle of each image of the first block."""
    column = (wide + 2) / len(place)
    axes.set_xticks([(k + 0.5) * column - 1.5 for k in range(len(place))], [f"{a:.3g}" for a in place])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=8, labeltop=first, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)

"""Grids of samples side by side: of every run the same seeds, and where there are such, after as many images."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorafusion.report.groups import Group
from lorafusion.report.run import Run

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 600_000  # bytes of a picture that is put into the page as it is; a larger one is packed anew


@dataclass(frozen=True)
class Grid:
    """source: a data URI. off: it was drawn after other images than most."""

    run: Run
    nimg: int
    source: str
    width: int
    height: int
    off: bool


def grids(groups: Sequence[Group]) -> list[tuple[Group, list[Grid]]]:
    """Of the groups that have any. What cannot be read is said in its run's problems."""
    nimg = common([[*run.grids] for group in groups for run in group.runs])
    found = []
    for group in groups:
        made = [grid for run in group.runs if run.grids and (grid := _grid(run, nimg))]
        if made:
            found.append((group, made))
    return found


def common(having: Sequence[Sequence[int]]) -> int:
    """The most images at which half of the runs, of those with any, have a grid."""
    some = [numbers for numbers in having if numbers]
    places = {n for numbers in some for n in numbers}
    return max((n for n in places if 2 * sum(n in numbers for numbers in some) >= len(some)), default=0)


def _grid(run: Run, wanted: int) -> Grid | None:
    """At the images wanted, else the newest before them, else the newest."""
    nimg = wanted if wanted in run.grids else max((n for n in run.grids if n < wanted), default=max(run.grids))
    file = run.grids[nimg]
    name = f"samples/{file.name}"
    try:
        content = file.read_bytes()
    except OSError:
        run.problems.append(f"{name} cannot be opened")
        return None
    if len(content) < 45 or not content.startswith(SIGNATURE) or b"IEND" not in content[-12:]:
        run.problems.append(f"{name} is no whole PNG")
        return None
    width, height = struct.unpack(">II", content[16:24])
    kind = "image/png"
    if len(content) > LARGEST:
        content, kind = packed(file), "image/webp"
    if content is None:
        run.problems.append(f"{name} is no PNG")
        return None
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return Grid(run, nimg, source, width, height, nimg != wanted)


def packed(file: Path) -> bytes | None:
    """As WebP, at most 1200 pixels wide, losses not to be seen."""
    import io

    from PIL import Image  # slow to import, and only needed here

    try:
        with Image.open(file, formats=["PNG"]) as image:
            image.thumbnail((1200, 4800))
            target = io.BytesIO()
            image.convert("RGB").save(target, "WEBP", quality=88)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return target.getvalue()

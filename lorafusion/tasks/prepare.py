"""A data set, from wherever it lies: decoded once into the array that runs use, and on demand as a zip file for EDM.

Decoding is resumed where a killed process left it (data/partial.py). The zip file is written from the finished array
under a temporary name, read back, compared image by image, and only then given its name.
"""

import os
import re
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from lorafusion.data import edm_zip
from lorafusion.data.cache import Cached
from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.data.module import ImageData
from lorafusion.data.parallel import decoded
from lorafusion.errors import UserError
from lorafusion.files import replacing
from lorafusion.progress import bar


def prepare(cfg: DictConfig) -> None:
    data: ImageData = instantiate(cfg.data, _convert_="all")
    if cfg.out is None:
        data.prepare_data()
        made = [data.split(split) for split in data.source.splits()]
        for found in made:
            show(found, found.meta["split"], found.meta["sha256"] + " (of the pixels and labels)", found.folder)
        print(made[0].folder)
        return
    out = Path(cfg.out).expanduser().absolute()
    if out.suffix != ".zip":
        raise UserError(f"out={cfg.out}: the name of a zip file ends in .zip")
    if data.path is not None and out.exists() and out.samefile(Path(data.path).expanduser()):
        raise UserError(f"prepare would write over {out}, which it reads; choose another out=...")
    edm_zip.check_side(data.resolution)  # said before decoding, which may take hours
    found = data.split(cfg.split)
    sha256 = write(found, out)
    show(found, cfg.split, sha256, out, verified=True)
    print(out)


def write(found: Cached, out: Path) -> str:
    """A zip file of a decoded split, whole or not at all; its sha256. Raises UserError where it cannot be written."""
    remove_stale(out)
    try:
        with replacing(out) as temporary:
            with bar(f"writing {out.name}", "images") as report:
                sha256 = edm_zip.write(found.images, found.labels, temporary, report)
            verify(found, temporary, out)
    except OSError as error:
        raise UserError(f"{out} could not be written: {error}; the decoded array stays in {found.folder}") from error
    return sha256


def verify(found: Cached, written: Path, out: Path) -> None:
    """Read a zip file back as runs read it. Raises UserError where an image or a label is not that of the array."""
    count, channels, side, _ = found.images.shape
    source = Folder(written)
    if source.count("train") != count:
        raise UserError(f"{out}: {source.count('train')} images read back where {count} were written")
    with bar(f"reading {out.name} back", "images") as report:
        for k, image in enumerate(decoded(source.records("train"), Decoder(side, channels))):
            if image.label != found.labels[k] or not np.array_equal(image.pixels, found.images[k]):
                raise UserError(f"{out}: image {k} does not read back as it was written; is the disk sound?")
            report(k + 1, count)


def remove_stale(out: Path) -> None:
    """The temporary files of processes that were killed while they wrote ``out``."""
    for file in out.parent.glob(f".{out.stem}.*.tmp{out.suffix}"):
        process = re.fullmatch(rf"\.{re.escape(out.stem)}\.(\d+)\.tmp\.zip", file.name)
        if process and _is_dead(int(process[1])):
            file.unlink(missing_ok=True)


def show(found: Cached, split: str, sha256: str, file: Path, verified: bool = False) -> None:
    count, channels, side, _ = found.images.shape
    classes = len(np.unique(found.labels[found.labels >= 0]))
    crop = f", crop {found.meta['crop']}" if found.meta["crop"] else ""
    rows = {
        "images": f"{count:,} {split}" + (", read back equal" if verified else ""),
        "classes": f"{classes}" if classes else "none: unlabelled",
        "size": f"{side} x {side}, {'RGB' if channels == 3 else 'grey'}",
        "filter": f"{found.meta['filter']}{crop} (where the size was another)",
        "sha256": sha256,
        "file": str(file),
    }
    table = Table(title=found.meta["name"], show_header=False)
    for row in rows.items():
        table.add_row(*row)
    Console(width=max(80, 20 + max(map(len, rows.values())))).print(table)


def _is_dead(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

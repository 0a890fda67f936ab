"""What task=sample leaves in its folder, written from the finished images, of which memory holds a few at a time.

grid.png                                    the first 256
images/<seed>.png                           formats: png
samples.npz                                 npz: images uint8 (N, H, W, C), seeds, labels
samples.npy, labels.npy                     npy: the same images and labels, to be mapped into memory
samples.zip                                 zip: in the layout of EDM's tools, labels too
samples.json                                what made them; written last
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from lorafusion.data import edm_zip
from lorafusion.errors import UserError
from lorafusion.files import json_object, replacing, write_text
from lorafusion.pictures import grid, save_png
from lorafusion.progress import bar
from lorafusion.tasks.seeds import parse_seeds
from lorafusion.tasks.shards import Shards, differences

FORMATS = ("png", "npz", "npy", "zip")
RECORD = "samples.json"
_SHOWN = 256


def check_formats(formats: Sequence[str], side: int) -> None:
    """Raises UserError for a format that there is not, or that cannot hold these images."""
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"formats={[*formats]}: there is no {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    if "zip" in formats and side & (side - 1):
        raise UserError(f"formats={[*formats]}: a zip file for EDM has images of a power of two, these have {side} px")


def record_of(out: Path) -> dict[str, Any]:
    """What finished samples say of themselves; {} where there are none."""
    return json_object(out / RECORD)


def replaced(out: Path, settings: dict[str, Any]) -> str:
    """What the finished samples that lie in ``out`` were drawn with, where that differs from ``settings``."""
    record = record_of(out)
    return differences({key: record.get(key) for key in settings}, settings) if record else ""


def are_there(out: Path, settings: dict[str, Any], formats: Sequence[str], maker: dict[str, Any]) -> bool:
    """Whether the finished samples in ``out`` are these, drawn by this very code: a changed checkout is not known."""
    record, git = record_of(out), maker["versions"]["git"]
    makers = [made["versions"] for made in record.get("made_by", [])]
    if (git and git.endswith("+")) or any(versions != maker["versions"] for versions in makers) or not makers:
        return False
    if record["formats"] != [*formats] or differences({key: record.get(key) for key in settings}, settings):
        return False
    pngs = {file.name for file in (out / "images").glob("*.png")}
    files = ["grid.png", *(f"samples.{name}" for name in formats if name != "png")]
    return pngs.issuperset(_pngs(out)) and all((out / file).is_file() for file in files)


def names(formats: Sequence[str]) -> str:
    """In words: what lies in the folder."""
    files = ["PNG files"] * ("png" in formats) + [f"samples.{name}" for name in FORMATS[1:] if name in formats]
    return ", ".join([*files, "their grid"])


def check_strangers(out: Path, seeds: Int64[np.ndarray, "N"], formats: Sequence[str]) -> None:
    """Raises UserError where images/ holds what neither these samples nor those before them put there."""
    if "png" not in formats or not (out / "images").is_dir():
        return
    ours = {*map(_png, seeds.tolist()), *_pngs(out)}
    strangers = [file.name for file in (out / "images").iterdir() if file.name not in ours]
    if strangers:
        raise UserError(
            f"{out / 'images'} holds {len(strangers)} files that no {RECORD} speaks of, such as {min(strangers)}; "
            "choose another out=..., so that samples are not mixed"
        )


def write(
    shards: Shards,
    seeds: Int64[np.ndarray, "N"],
    labels: Int64[np.ndarray, "N"] | None,
    formats: Sequence[str],
    record: dict[str, Any],
) -> None:
    """All formats, then the record; samples that lay there before go. Shards stay: a killed process can do it again."""
    out = shards.out
    _remove(out)
    with shards.gathered() as (whole, images, sha256):
        if "png" in formats:
            _write_pngs(images, seeds, out / "images")
        save_png(grid(images[:_SHOWN]), out / "grid.png", scale=max(1, 64 // images.shape[1]))
        if "npz" in formats:
            known = {} if labels is None else {"labels": labels}
            with replacing(out / "samples.npz") as temporary:
                np.savez_compressed(temporary, images=images, seeds=seeds, **known)  # pyright: ignore[reportArgumentType]
        if "zip" in formats:
            every = np.full(len(seeds), -1) if labels is None else labels
            with replacing(out / "samples.zip") as temporary, bar("writing samples.zip", unit="images") as report:
                edm_zip.write(images.transpose(0, 3, 1, 2), every, temporary, report)
        if "npy" in formats:
            whole.replace(out / "samples.npy")
            if labels is not None:
                with replacing(out / "labels.npy") as temporary:
                    np.save(temporary, labels)
    if "png" in formats:
        os.sync()  # once for all of them, for the shards are removed next
    content = {"n": len(seeds), "shape": [*shards.shape], "sha256": sha256, **record, "formats": [*formats]}
    write_text(out / RECORD, json.dumps(content, indent=1) + "\n")


def _write_pngs(images: UInt8[np.ndarray, "N H W C"], seeds: Int64[np.ndarray, "N"], folder: Path) -> None:
    """Under their own names at once, which is three times as fast; nobody takes them for whole before the record."""
    folder.mkdir(parents=True, exist_ok=True)
    with bar("writing images", unit="images") as report:
        for k, (image, seed) in enumerate(zip(images, seeds.tolist(), strict=True)):
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / _png(seed), format="PNG")
            report(k + 1, len(images))


def _remove(out: Path) -> None:
    """The samples that the record in ``out`` speaks of, and the record last."""
    for name in _pngs(out):
        (out / "images" / name).unlink(missing_ok=True)
    if (out / RECORD).exists():
        for name in ("samples.npz", "samples.npy", "labels.npy", "samples.zip", RECORD):
            (out / name).unlink(missing_ok=True)


def _pngs(out: Path) -> list[str]:
    """The files that the record in ``out`` puts into images/."""
    record = record_of(out)
    if "png" not in record.get("formats", []):
        return []
    return [_png(seed) for seed in parse_seeds(record.get("seeds") or [], 0).tolist()]


def _png(seed: int) -> str:
    return f"{seed:06d}.png"

"""Generated images from wherever they lie: task=sample's folders and files, EDM's zip, a folder of images."""

import hashlib
import io
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from lorafusion.data.archive import find
from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.data.parallel import decoded
from lorafusion.errors import UserError
from lorafusion.progress import bar
from lorafusion.tasks.evaluate_samples import Samples, checked, read_samples

NAMES = ("samples.npz", "samples.npy", "samples.zip", "images")  # what task=sample writes; the first found is read


def read_set(path: Path) -> Samples:
    """A run's folder (its newest samples), a folder of task=sample, an npz, npy or zip file, a folder of images.

    Images are taken as they are: one that is not as large as the first is refused. Raises UserError.
    """
    if not path.exists():
        raise UserError(f"samples: there is no {path}; `python run.py task=sample ckpt=<run's folder>` writes some")
    path = _inside(path)
    if path.suffix == ".npz":
        return read_samples(path)
    return _array(path) if path.suffix == ".npy" else _images(path)


def _inside(path: Path) -> Path:
    """The file or folder of images in what a run or task=sample wrote; else ``path``."""
    if path.is_file():
        return path
    folders = [path, *sorted(path.glob("samples/*/"), key=lambda folder: folder.stat().st_mtime, reverse=True)]
    return next((folder / name for folder in folders for name in NAMES if (folder / name).exists()), path)


def _array(file: Path) -> Samples:
    """Mapped into memory; uint8 (N, H, W) or (N, H, W, C), labels in labels.npy beside it."""
    beside = file.with_name("labels.npy")
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
        labels = np.load(beside, allow_pickle=False) if beside.is_file() else None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"samples: {file} is no npy of images: {' '.join(str(error).split())[:200]}") from error
    with file.open("rb") as content:
        return checked(file, hashlib.file_digest(content, "sha256").hexdigest(), images, labels)


def _images(path: Path) -> Samples:
    """Of a folder or a zip file, in the order of their names; labels as its dataset.json has them."""
    source = Folder(path)
    names = source.archive.names
    files = source.found["train"].files
    if len(files) < 2 or len(source.roots) > 1:
        raise UserError(f"samples: {path} should hold at least 2 images, and no train and test folders")
    first = next(source.records("train"))
    decoder = _decoder(first.image, first.name)
    images = np.empty((len(files), decoder.channels, decoder.resolution, decoder.resolution), np.uint8)
    with bar("reading samples", "images") as report, closing(decoded(source.records("train"), decoder)) as found:
        for k, image in enumerate(found):
            if set(image.size) != {decoder.resolution}:
                size = " x ".join(map(str, image.size))
                raise UserError(
                    f"{image.name}: {size} pixels; {first.name} has {decoder.resolution}: samples are equal"
                )
            images[k] = image.pixels
            report(k + 1, len(files))
    digest = hashlib.sha256(images.data).hexdigest()
    labels = source.found["train"].labels if find(names, "dataset.json") is not None else None
    return Samples(path, digest, images, labels if labels is not None and (labels >= 0).any() else None)


def _decoder(image: bytes | np.ndarray, name: str) -> Decoder:
    """One that leaves images like this one as they are."""
    assert isinstance(image, bytes)
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return Decoder(opened.size[0], 1 if opened.mode in ("1", "L") else 3)
    except OSError as error:
        raise UserError(f"{name}: not a readable image") from error

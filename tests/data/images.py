"""Small images and sources for the tests of the data."""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lorafusion.data.source import Record


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3), or (height, width) for one channel."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray | Image.Image, file_format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(file, file_format, **options)
    return file.getvalue()


def write_zip(
    path: Path, files: dict[str, bytes], labels: object = "absent", compress: int = zipfile.ZIP_STORED
) -> Path:
    """``labels`` becomes dataset.json."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if labels != "absent":
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


class Listed:
    """A source of given records; notes in ``log`` each time that it is read, and may be slow."""

    def __init__(self, records: list[Record], log: Path | None = None, seconds: float = 0.0, test: bool = False):
        self.all, self.log, self.seconds, self.has_test = records, log, seconds, test
        self.mark = ""

    def splits(self) -> tuple[str, ...]:
        return ("train", "test") if self.has_test else ("train",)

    def fingerprint(self, split: str) -> str:
        return f"{len(self.all)} {self.mark}"

    def count(self, split: str) -> int:
        return len(self.all)

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write("read\n")
        for record in self.all[start:]:
            time.sleep(self.seconds)
            yield record


def grey(n: int, side: int = 8, **options) -> Listed:
    """n grey images, each with its own pixels; image k has label k mod 10."""
    return Listed([Record(noise(side, side, 1, k), k % 10, f"image {k}") for k in range(n)], **options)

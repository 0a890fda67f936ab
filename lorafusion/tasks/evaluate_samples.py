"""Judge generated images beside real ones and noise: a short table, and metrics.json beside the samples."""

import hashlib
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from lorafusion.data.module import ImageData
from lorafusion.errors import UserError
from lorafusion.metrics.digits import Digits, Measured
from lorafusion.metrics.metrics_file import record
from lorafusion.progress import bar
from lorafusion.tasks.run_data import choose
from lorafusion.tasks.sample_files import record_of

SAMPLES = "samples.npz"


@dataclass(frozen=True)
class Samples:
    """images:  uint8 (N, C, R, R).  labels: (N,) classes asked for, -1 where none was; None = unconditional."""

    file: Path
    sha256: str
    images: np.ndarray
    labels: np.ndarray | None


def judge(cfg: DictConfig, metric: Digits) -> Path:
    samples = read_samples(find_samples(Path(cfg.samples).expanduser().absolute()))
    data: ImageData = instantiate(cfg.data, _convert_="all")
    train, test = data.arrays("train"), data.arrays("test")
    check_fit(f"samples: {samples.file}", samples.images.shape, data.name, train[0])
    with bar("training the digit classifier, once", unit="steps") as progress:
        metric.prepare(*train, *test, progress)
    held_out = choose(len(test[0]), len(samples.images))  # a Frechet distance depends on N: rows should share it
    rows = {
        "samples": metric.measure(samples.images, samples.labels),
        "held-out real digits": metric.measure(*(part[held_out] for part in test)),
        "uniform noise": metric.measure(noise_like(samples.images.shape)),
    }
    console = Console()
    console.print(f"{samples.file} beside {data.name} at {data.resolution} px", soft_wrap=True)
    console.print(table(rows, metric))
    console.print(
        f"Distances are to the {len(train[0]):,} training digits, on {metric.net.width} features of a digit "
        f"classifier; they are no FID. The classifier reads {metric.accuracy:.1%} of {len(test[0]):,} held-out digits."
    )
    record(samples.file.parent, metric.name, entry(metric, rows, samples, data), subject="samples")
    return samples.file.parent


def table(rows: dict[str, Measured], metric: Digits) -> Table:
    shown = Table()
    columns = ["images", "N", f"recognised\nwith p > {metric.p:g}", "classifier\nFrechet distance"]
    with_labels = rows["samples"].agreement is not None
    for column in [*columns, "read as\nits class"] if with_labels else columns:
        shown.add_column(column, justify="left" if column == "images" else "right")
    for name, m in rows.items():
        cells = [name, f"{m.n:,}", f"{m.recognised:.3f}", f"{m.distance:.2f}"]
        agreement = "" if m.agreement is None else f"{m.agreement:.3f}"
        shown.add_row(*cells, *([agreement] if with_labels else []))
    return shown


def entry(metric: Digits, rows: dict[str, Measured], samples: Samples, data: ImageData) -> dict[str, Any]:
    return {
        "samples": {"file": samples.file.name, "sha256": samples.sha256, "n": len(samples.images)},
        "classifier_frechet_distance": rows["samples"].distance,
        "recognised": rows["samples"].recognised,
        "agreement": rows["samples"].agreement,
        **metric.describe(),
        "dataset": {"name": data.name, "resolution": data.resolution, "channels": data.channels},
        "made": record_of(samples.file.parent) or None,
        "rows": {name: asdict(measured) for name, measured in rows.items()},
    }


def find_samples(path: Path) -> Path:
    """The file itself, or the newest that task=sample wrote into a folder or a run's samples/."""
    if path.is_file():
        return path
    found = [file for pattern in (SAMPLES, f"*/{SAMPLES}", f"samples/*/{SAMPLES}") for file in path.glob(pattern)]
    if not found:
        where = f"there is no {SAMPLES} in {path}" if path.is_dir() else f"there is no {path}"
        raise UserError(f"samples: {where}; `python run.py task=sample ckpt=<run's folder>` writes one")
    return max(found, key=lambda file: file.stat().st_mtime)


def read_samples(file: Path) -> Samples:
    """Raises UserError for a file that is not what task=sample writes."""
    try:
        with np.load(file) as content:
            images = content["images"]
            labels = content.get("labels")
    except (OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"samples: {file} is no npz of images: {' '.join(str(error).split())[:200]}") from error
    return checked(file, hashlib.sha256(file.read_bytes()).hexdigest(), images, labels)


def checked(file: Path, sha256: str, images: np.ndarray, labels: np.ndarray | None) -> Samples:
    """Images (N, H, W) or (N, H, W, C) that ``file`` holds. Raises UserError for others."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) < 2:
        raise UserError(
            f"samples: {file} holds images {images.dtype} {images.shape}, not uint8 (N, H, W) or (N, H, W, C), N >= 2"
        )
    if labels is not None and (labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer)):
        raise UserError(f"samples: {file} holds labels {labels.dtype} {labels.shape} for {len(images)} images")
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)  # (N, C, H, W)
    return Samples(file, sha256, np.ascontiguousarray(images), labels)


def check_fit(subject: str, shape: tuple[int, ...], name: str, real: np.ndarray) -> None:
    """Raises UserError where a subject's images (N, C, R, R) and real images differ in size or channels."""
    (_, c, h, w), (_, channels, resolution, _) = shape, real.shape
    if (c, h, w) != (channels, resolution, resolution):
        raise UserError(
            f"{subject} has images of {h} x {w} pixels, {c} channels; data {name} has "
            f"{resolution} x {resolution}, {channels}: choose data=..., data.resolution={h}, data.channels={c}"
        )


def noise_like(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

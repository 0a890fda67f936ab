"""Judge sets of generated images by a network's features: a table, and metrics.json beside the samples.

Several sets, as EDM's protocol has three of other seeds, give the minimum, the mean and all values. Under torchrun the
processes share the work, and the numbers are the same to the last bit.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from lorafusion.data.module import ImageData
from lorafusion.errors import UserError
from lorafusion.metrics import reference
from lorafusion.metrics.features import Seen
from lorafusion.metrics.judge import Numbers, numbers_of
from lorafusion.metrics.metrics_file import record
from lorafusion.metrics.reference import Origin, Real
from lorafusion.metrics.statistics import Statistics
from lorafusion.tasks import run_folder
from lorafusion.tasks.evaluate_samples import Samples, check_fit, noise_like
from lorafusion.tasks.run_data import choose
from lorafusion.tasks.subjects import Subject, subject_of
from lorafusion.tasks.together import processes


def judge(cfg: DictConfig, metric: Any) -> Path | None:
    device = run_folder.device(cfg.device)
    metric.extractor.load(device)
    subject = subject_of(cfg)
    with processes(device) as rank:
        try:
            judgement = Judgement(cfg, metric, device, subject)
            sets = subject.sets()
            numbers = [judgement.of(samples.images, samples.labels, name) for name, samples in sets]
            controls = judgement.controls() if cfg.controls else {}
        except ValueError as error:  # a setting that does not suit these images
            raise UserError(str(error)) from error
    if rank > 0:
        return None
    out = Path(cfg.out).expanduser().absolute() if cfg.out else subject.home
    record(out, metric.name, entry(judgement, [s for _, s in sets], numbers, controls), subject=subject.key)
    console = Console()
    console.print(judgement.heading(), soft_wrap=True)
    shown = {name: found for (name, _), found in zip(sets, numbers, strict=True)}
    console.print(table({**shown, **(summary(numbers) if len(sets) > 1 else {}), **controls}))
    return out


class Judgement:
    """One metric, its reference, and a subject. Raises ValueError and UserError where these do not go together."""

    def __init__(self, cfg: DictConfig, metric: Any, device: torch.device, subject: Subject):
        self.cfg, self.metric, self.device, self.subject = cfg, metric, device, subject
        self.extractor = metric.extractor
        self.data: ImageData | None = None
        if (metric.reference and not cfg.get("reference")) or cfg.controls:
            self.data = instantiate(cfg.data, _convert_="all")
            check_fit(f"{subject.key}: {subject.file}", subject.shape, self.name, self.split(cfg.split)[0])
        self.reference, self.origin = self._reference()

    @property
    def name(self) -> str:
        return self.data.name if self.data else "none"

    def split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Real images and their labels."""
        assert self.data is not None
        return self.data.arrays(split)

    def of(self, images: np.ndarray, labels: np.ndarray | None, name: str) -> Numbers:
        return numbers_of(self.metric, images, labels, self.reference, self.device, name)

    def controls(self) -> dict[str, Numbers]:
        """What the metric makes of real images of the other split, and of noise, as many as the samples at most."""
        other = "test" if self.cfg.split == "train" else "train"
        images, labels = self.split(other)
        chosen = choose(len(images), self.subject.shape[0])
        return {
            f"real {other} images": self.of(images[chosen], labels[chosen], other),
            "uniform noise": self.of(noise_like(self.subject.shape), None, "noise"),
        }

    def heading(self) -> str:
        text = f"{self.metric.name} on features of {self.extractor.name}"
        if self.metric.reference:
            text += f"; reference: {self.origin['dataset'] or self.origin['file']}, N = {self.origin['n'] or 'unknown'}"
        if not getattr(self.extractor, "published", True):
            text += "\nThese are not the weights of published FIDs: compare with no published number."
        return text

    def _reference(self) -> tuple[Statistics | Seen | None, Origin]:
        """And where it comes from, for the record."""
        if not self.metric.reference:
            return None, {}
        if file := self.cfg.get("reference"):
            path = Path(file).expanduser().absolute()
            return reference.from_file(self.extractor, path, self.subject.shape)
        assert self.data is not None
        split = self.data.split(self.cfg.split)
        real = Real(split.images, f"{self.data.name} {self.cfg.split}", split.meta["sha256"], split.folder)
        return reference.from_images(self.extractor, real, self.metric.reference, self.device)


def summary(numbers: list[Numbers]) -> dict[str, Numbers]:
    keys = [key for key in numbers[0] if key != "n"]
    return {
        "minimum": {key: min(found[key] for found in numbers) for key in keys},
        "mean": {key: float(np.mean([found[key] for found in numbers])) for key in keys},
    }


def entry(
    judgement: Judgement, sets: list[Samples], numbers: list[Numbers], controls: dict[str, Numbers]
) -> dict[str, Any]:
    """Numbers themselves of one set; of several the minimum, the mean, and all."""
    extractor, (_, channels, side, _) = judgement.extractor, judgement.subject.shape
    return {
        **judgement.subject.described(sets),
        **(numbers[0] if len(sets) == 1 else {**summary(numbers), "all": numbers}),
        **judgement.metric.describe(),
        "extractor": {
            "name": extractor.name,
            "weights_sha256": extractor.weights_sha256,
            "resize": extractor.resize,
            "block": extractor.block,
        },
        "reference": judgement.origin or None,
        "images": {"resolution": side, "channels": channels},
        "controls": controls,
    }


def table(rows: dict[str, Numbers]) -> Table:
    shown = Table()
    columns = list(dict.fromkeys(key for numbers in rows.values() for key in numbers))
    shown.add_column("images", overflow="fold")
    for column in columns:
        shown.add_column(column, justify="right")
    for name, numbers in rows.items():
        cells = [numbers.get(key) for key in columns]
        shown.add_row(name, *("" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:.5g}" for v in cells))
    return shown

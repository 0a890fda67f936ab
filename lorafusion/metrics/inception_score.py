"""metric=inception_score: how sure a classifier is of each sample, and how varied its answers are.

    IS = exp E_x KL(p(y | x) || p(y)),    1 .. number of classes

Salimans et al. 2016. The mean over parts of the samples, shuffled as torch-fidelity does. No real image enters.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.metrics.features import Extractor, Seen


class InceptionScore:
    """extractor:  one with logits.
    weights:    file of the extractor's weights, kept here so that the command line says ``metric.weights=``.
    splits:     parts of the samples; 10 in published numbers.
    """

    judges, takes, reference = "features", ("logits",), None

    def __init__(self, extractor: Extractor, weights: str | None = None, splits: int = 10):
        self.extractor, self.splits = extractor, splits
        self.name = "inception_score" if extractor.name == "inception" else f"classifier_score_{extractor.name}"

    def compare(self, samples: Seen, reference: None = None) -> dict[str, float]:
        """Raises ValueError where the extractor has no logits, and for more parts than samples."""
        if samples.logits is None:
            raise ValueError(f"metric=inception_score asks a classifier, and extractor {self.extractor.name} is none")
        self.check(samples.n)
        mean, std = inception_score(samples.logits, self.splits)
        return {self.name: mean, "std": std}

    @property
    def numbers(self) -> tuple[str, ...]:
        return self.name, "std"

    def check(self, n: int, reference_n: int = 0) -> None:
        """Raises ValueError for more parts than samples."""
        if not 1 <= self.splits <= n:
            raise ValueError(f"metric.splits={self.splits}: 1 .. {n:,}, the number of samples")

    def describe(self) -> dict:
        return {"splits": self.splits}


def inception_score(logits: Float[Tensor, "N K"], splits: int, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation over the parts."""
    n = len(logits)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    log_p = logits[order].double().log_softmax(dim=1)
    scores = []
    for k in range(splits):
        part = log_p[k * n // splits : (k + 1) * n // splits]
        p = part.exp()
        scores.append((p * (part - p.mean(dim=0).log())).nansum(dim=1).mean().exp().item())  # 0 log 0 = 0
    return float(np.mean(scores)), float(np.std(scores))

"""metric=precision_recall: how many samples lie where real images do, and how much of these samples reach.

Around each image of a set a ball reaches to its k-th nearest neighbour in the set; the balls together stand for what
the set covers (Kynkaanniemi et al. 2019, "improved precision and recall").

    precision   share of the samples within the balls of the real images
    recall      share of the real images within the balls of the samples
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorafusion.metrics.features import Extractor, Seen

ROWS = 2048  # of the matrix of distances that are in memory at once


class PrecisionRecall:
    """Depends on the number of images of both sets: compare only at equal numbers, published ones at 50,000 each.

    extractor:  of features.
    weights:    file of the extractor's weights, kept here so that the command line says ``metric.weights=``.
    neighbours: k.
    """

    name, judges, takes, reference = "precision_recall", "features", ("features",), "features"

    def __init__(self, extractor: Extractor, weights: str | None = None, neighbours: int = 3):
        self.extractor, self.neighbours = extractor, neighbours
        if extractor.name != "inception":
            self.name = f"precision_recall_{extractor.name}"

    def compare(self, samples: Seen, reference: Seen) -> dict[str, float]:
        """Raises ValueError where a set has no k neighbours."""
        assert samples.features is not None
        assert reference.features is not None
        precision, recall = precision_recall(samples.features, reference.features, self.neighbours)
        return {"precision": precision, "recall": recall}

    @property
    def numbers(self) -> tuple[str, ...]:
        return "precision", "recall"

    def check(self, n: int, reference_n: int) -> None:
        """Raises ValueError where a set has no k neighbours."""
        check_neighbours(self.neighbours, n, reference_n)

    def describe(self) -> dict:
        return {"neighbours": self.neighbours}


def precision_recall(
    samples: Float[Tensor, "N D"], reference: Float[Tensor, "M D"], neighbours: int = 3
) -> tuple[float, float]:
    """Raises ValueError where a set has not more images than ``neighbours``."""
    check_neighbours(neighbours, len(samples), len(reference))
    a, b = samples.double(), reference.double()
    precision = within(a, b, radii(b, neighbours)).double().mean().item()
    return precision, within(b, a, radii(a, neighbours)).double().mean().item()


def check_neighbours(neighbours: int, n: int, reference_n: int) -> None:
    """Raises ValueError where a set has not more images than ``neighbours``."""
    least = min(n, reference_n)
    if not 1 <= neighbours < least:
        raise ValueError(f"metric.neighbours={neighbours}: 1 .. {least - 1:,}")


def radii(x: Float[Tensor, "N D"], neighbours: int) -> Float[Tensor, "N"]:
    """Squared distance of each row to its k-th nearest other row."""
    return torch.cat([_squared(rows, x).kthvalue(neighbours + 1, dim=1).values for rows in x.split(ROWS)])


def within(x: Float[Tensor, "N D"], centres: Float[Tensor, "M D"], radius: Float[Tensor, "M"]) -> Bool[Tensor, "N"]:
    """Which rows lie in one of the balls at least."""
    return torch.cat([(_squared(rows, centres) <= radius).any(dim=1) for rows in x.split(ROWS)])


def _squared(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """Squared distances."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min(0)

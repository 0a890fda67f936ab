"""metric=kid: kernel distance of samples to a data set (kernel_distance.py)."""

from lorafusion.metrics.features import Extractor, Seen
from lorafusion.metrics.kernel_distance import check_size, kernel_distance


class KID:
    """Unlike FID it has no bias that depends on N. With another extractor than inception it is no KID, and is called
    a kernel distance.

    extractor:    of features.
    weights:      file of the extractor's weights, kept here so that the command line says ``metric.weights=``.
    subsets:      random subsets, whose mean is reported.
    subset_size:  images of each.
    """

    judges, takes, reference = "features", ("features",), "features"

    def __init__(self, extractor: Extractor, weights: str | None = None, subsets: int = 100, subset_size: int = 1000):
        self.extractor, self.subsets, self.subset_size = extractor, subsets, subset_size
        self.name = "kid" if extractor.name == "inception" else f"kernel_distance_{extractor.name}"

    def compare(self, samples: Seen, reference: Seen) -> dict[str, float]:
        """Raises ValueError for subsets larger than a set."""
        assert samples.features is not None
        assert reference.features is not None
        mean, std = kernel_distance(
            samples.features, reference.features, subsets=self.subsets, subset_size=self.subset_size
        )
        return {self.name: mean, "std": std}

    @property
    def numbers(self) -> tuple[str, ...]:
        return self.name, "std"

    def check(self, n: int, reference_n: int) -> None:
        """Raises ValueError for subsets larger than a set."""
        check_size(self.subset_size, n, reference_n)

    def describe(self) -> dict:
        return {"subsets": self.subsets, "subset_size": self.subset_size}

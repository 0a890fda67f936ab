"""metric=fid: Frechet distance of samples to a data set, or to a file of its statistics (frechet.py)."""

from lorafusion.metrics.features import Extractor, Seen
from lorafusion.metrics.frechet import frechet_distance
from lorafusion.metrics.moments import Moments
from lorafusion.metrics.statistics import Statistics


class FID:
    """It depends on N: compare only at equal N, and with published numbers at 50,000. With another extractor than
    inception it is no FID, and is called a Frechet distance.

    extractor:  of features.
    weights:    file of the extractor's weights, kept here so that the command line says ``metric.weights=``.
    """

    judges, takes, reference = "features", ("moments",), "statistics"

    def __init__(self, extractor: Extractor, weights: str | None = None):
        self.extractor = extractor
        self.name = "fid" if extractor.name == "inception" else f"frechet_distance_{extractor.name}"

    def compare(self, samples: Seen, reference: Statistics | Moments) -> dict[str, float]:
        """Raises ValueError where they are of different widths."""
        seen = samples.moments
        assert seen is not None
        if len(seen.mean) != len(reference.mean):
            raise ValueError(
                f"the reference has {len(reference.mean)} features, {self.extractor.name} {len(seen.mean)}"
            )
        return {
            self.name: frechet_distance(seen.mean, seen.covariance, reference.mean, reference.covariance),
        }

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.name,)

    def check(self, n: int, reference_n: int) -> None:
        """Any number of images has a distance, though it depends on it."""

    def describe(self) -> dict:
        return {}

"""What a row of conditions differs in, as an axis of a picture: noise levels, or classes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Axis:
    """name:   of the files and arrays over it.
    label:  what a picture writes beside it.
    place:  (N,) where each condition stands, increasing, evenly spaced up to rounding.
    ticks:  places that are marked, and what is written there.
    """

    name: str
    label: str
    place: Float[np.ndarray, "N"]
    ticks: tuple[list[float], list[str]]

    @property
    def edges(self) -> tuple[float, float]:
        """Of an image whose pixels are the N conditions."""
        half = (self.place[-1] - self.place[0]) / max(len(self.place) - 1, 1) / 2
        return float(self.place[0] - half), float(self.place[-1] + half)


def class_axis(classes: list[int]) -> Axis:
    """Of these classes, side by side in their order."""
    place = np.arange(len(classes), dtype=np.float64)
    every = -(-len(classes) // 12) or 1
    return Axis("classes", "class", place, (place[::every].tolist(), [str(c) for c in classes[::every]]))


def round_up(x: float) -> float:
    """To 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(x))
    return float(next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= x * (1 - 1e-9)))

"""Classifier-free guidance: away from what the network says without a label. Ho & Salimans 2022, eq. 6.

In an interval of noise levels only: Kynkaanniemi et al. 2024. The network must know the zero label: train it with
``denoiser.label_dropout``.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from lorafusion.processes import Prediction
from lorafusion.samplers import Denoise


@dataclass(frozen=True)
class Guidance:
    """scale:         D = D_free + scale (D_label - D_free): 1 = none, 0 = no label.
    above, below:  at noise levels above < sigma <= below; elsewhere D_label alone, which costs half.

    Raises ValueError for a negative scale, or an empty interval.
    """

    scale: float = 1.0
    above: float = 0.0
    below: float = math.inf

    def __post_init__(self):
        if self.scale < 0 or not 0 <= self.above < self.below:
            raise ValueError(
                f"guidance must be at least 0 and its interval 0 <= above < below; got {self.scale} in "
                f"{self.above} .. {self.below}"
            )

    def between(self, labelled: Denoise, free: Denoise) -> Denoise:
        if self.scale == 1:
            return labelled

        def denoise(x: Tensor, sigma: Tensor) -> Prediction:
            told = labelled(x, sigma)
            if not self.above < float(sigma[0]) <= self.below:  # all images of a batch are at one level
                return told
            untold = free(x, sigma).x0
            return Prediction(untold + self.scale * (told.x0 - untold), told.v)

        return denoise

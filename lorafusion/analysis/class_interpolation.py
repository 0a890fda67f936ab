"""Labels between two classes, (1 - a) e_i + a e_j, and what denoisers draw of them.

Choi et al. 2024, Figures 5 and 8.
"""

from collections.abc import Sequence

import numpy as np
import torch

from lorafusion.analysis.image_rows import Row
from lorafusion.analysis.labels import check_classes
from lorafusion.errors import UserError


class ClassInterpolation:
    """pairs:  of classes (i, j), each a row of images.
    steps:  values of a in 0 .. 1, at least 2; the first image is that of class i, the last that of class j.
    """

    name, looks_at = "class_interpolation", "images"

    def __init__(self, pairs: Sequence[Sequence[int]] = ((0, 1),), steps: int = 9):
        self.pairs, self.steps = [[*pair] for pair in pairs], steps

    def rows(self, num_classes: int) -> list[Row]:
        """Raises UserError where a pair is none, or fewer than 2 steps are asked for."""
        if self.steps < 2:
            raise UserError(f"analysis.steps={self.steps}: at least 2, both ends")
        if not self.pairs or any(len(pair) != 2 for pair in self.pairs):
            raise UserError(f"analysis.pairs={self.pairs}: pairs of two classes, like [[0,7],[3,8]]")
        check_classes([c for pair in self.pairs for c in pair], num_classes, f"analysis.pairs={self.pairs}")
        one_hot = torch.eye(num_classes)
        place = np.linspace(0, 1, self.steps)
        a = torch.from_numpy(place).to(one_hot)[:, None]
        return [
            Row(f"class {i} to class {j}", place, (1 - a) * one_hot[i] + a * one_hot[j], (i, j)) for i, j in self.pairs
        ]

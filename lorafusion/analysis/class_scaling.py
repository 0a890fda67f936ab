"""Labels a e_i, from the opposite of a class (a < 0) to more of it than there is (a > 1), and what denoisers draw of
them. Choi et al. 2024, Figures 9 and 10.
"""

from collections.abc import Sequence

import numpy as np
import torch

from lorafusion.analysis.image_rows import Row
from lorafusion.analysis.labels import check_classes
from lorafusion.errors import UserError


class ClassScaling:
    """classes:       i, each a row of images.
    lowest, highest:  of a; 0 is the zero label, 1 the class as it was trained.
    steps:            values of a, at least 2, evenly spaced.
    """

    name, looks_at = "class_scaling", "images"

    def __init__(self, classes: Sequence[int] = (0,), lowest: float = -1.0, highest: float = 1.0, steps: int = 9):
        self.classes, self.lowest, self.highest, self.steps = [*classes], lowest, highest, steps

    def rows(self, num_classes: int) -> list[Row]:
        """Raises UserError for a class that there is not, and a range that is none."""
        if self.steps < 2 or not self.lowest < self.highest:
            raise UserError(
                f"analysis.steps={self.steps} analysis.lowest={self.lowest:g} analysis.highest={self.highest:g}: "
                "at least 2 steps, upwards"
            )
        if not self.classes:
            raise UserError("analysis.classes=[]: name at least one class")
        check_classes(self.classes, num_classes, f"analysis.classes={self.classes}")
        place = np.linspace(self.lowest, self.highest, self.steps)
        a = torch.from_numpy(place).to(torch.get_default_dtype())[:, None]
        return [Row(f"a times class {i}", place, a * torch.eye(num_classes)[i], (i,)) for i in self.classes]

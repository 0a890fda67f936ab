"""Label vectors of an analysis: classes as one-hot rows, the zero label, none of an unconditional network."""

import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.errors import UserError


def one_label(num_classes: int | None, label: int | None, rows: int) -> Float[Tensor, "rows K"] | None:
    """The same class in every row; the zero vector where ``label`` is None. Raises UserError for no class of theirs."""
    if num_classes is None:
        if label is not None:
            raise UserError(f"analysis.label={label} was given, but this run is unconditional")
        return None
    if label is None:
        return torch.zeros(rows, num_classes)
    check_classes([label], num_classes, f"analysis.label={label}")
    return torch.eye(num_classes)[[label] * rows]


def check_classes(classes: list[int], num_classes: int, setting: str) -> None:
    """Raises UserError unless all are classes of the run."""
    if not all(isinstance(c, int) and 0 <= c < num_classes for c in classes):
        raise UserError(f"{setting}: classes of this run are 0 .. {num_classes - 1}")

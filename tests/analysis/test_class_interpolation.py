"""Labels between two classes."""

import pytest
import torch

from lorafusion.analysis.class_interpolation import ClassInterpolation
from lorafusion.errors import UserError


def test_labels_run_from_one_class_to_the_other():
    first, second = ClassInterpolation([[0, 2], [1, 0]], steps=5).rows(3)
    expected = torch.tensor([[1, 0, 0], [0.75, 0, 0.25], [0.5, 0, 0.5], [0.25, 0, 0.75], [0, 0, 1]])
    assert torch.equal(first.label, expected)
    assert first.place.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert torch.equal(second.label[[0, -1]], torch.eye(3)[[1, 0]])
    assert (first.follows, second.follows) == ((0, 2), (1, 0))


@pytest.mark.parametrize("steps", [2, 9, 11])
def test_ends_are_one_hot_to_the_bit(steps):
    (row,) = ClassInterpolation([[7, 3]], steps).rows(10)
    assert torch.equal(row.label[[0, -1]], torch.eye(10)[[7, 3]])
    assert row.label.dtype == torch.float32


def test_mistakes():
    for pairs, says in (([[0, 3]], r"classes of this run are 0 \.\. 2"), ([[0, 1, 2]], "pairs of two"), ([], "pairs")):
        with pytest.raises(UserError, match=says):
            ClassInterpolation(pairs).rows(3)
    with pytest.raises(UserError, match="steps=1"):
        ClassInterpolation([[0, 1]], 1).rows(3)

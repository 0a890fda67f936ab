"""Labels that are multiples of a class."""

import pytest
import torch

from lorafusion.analysis.class_scaling import ClassScaling
from lorafusion.errors import UserError


def test_labels_are_multiples_of_the_class():
    first, second = ClassScaling([2, 0], lowest=-1, highest=2, steps=4).rows(3)
    assert torch.equal(first.label, torch.tensor([[0, 0, -1.0], [0, 0, 0], [0, 0, 1], [0, 0, 2]]))
    assert first.place.tolist() == [-1, 0, 1, 2]
    assert torch.equal(second.label[:, 0], torch.tensor([-1.0, 0, 1, 2]))
    assert (first.follows, second.follows) == ((2,), (0,))


def test_mistakes():
    with pytest.raises(UserError, match=r"analysis.classes=\[3\]: classes of this run are 0 \.\. 2"):
        ClassScaling([3]).rows(3)
    with pytest.raises(UserError, match="at least one class"):
        ClassScaling([]).rows(3)
    for bad in ({"steps": 1}, {"lowest": 2.0}):
        with pytest.raises(UserError, match="at least 2 steps, upwards"):
            ClassScaling([0], **bad).rows(3)

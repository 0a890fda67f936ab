import math

import pytest

from lorafusion.denoisers.schedule import Constant, Cosine


def test_constant_ramps_up_linearly_in_images():
    assert [Constant(100)(n) for n in (0, 25, 100, 10**9)] == [0, 0.25, 1, 1]
    assert Constant()(0) == 1


def test_cosine_by_its_formula():
    schedule = Cosine(images=1100, rampup_images=100, final=0.1)
    assert schedule(50) == 0.5
    assert schedule(100) == 1
    assert schedule(350) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule(1100) == schedule(5000) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="rampup_images < images"):
        Cosine(images=10, rampup_images=10)

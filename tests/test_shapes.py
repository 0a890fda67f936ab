"""The shapes in the annotations are checked under pytest, and only there."""

from pathlib import Path

import jaxtyping
import pytest
import torch

from lorafusion.lora import LowRank
from lorafusion.sites import Cond, Linear
from tests.shapes import unchecked

ROOT = Path(__file__).parents[1]


def test_a_wrong_shape_or_dtype_is_caught():
    layer, cond = Linear(4, 5), Cond(torch.zeros(2))
    assert layer(torch.zeros(2, 3, 4), cond).shape == (2, 3, 5)
    with pytest.raises(jaxtyping.TypeCheckError, match="B N d_in"):
        layer(torch.zeros(2, 4), cond)
    with pytest.raises(jaxtyping.TypeCheckError, match="step"):
        Cond(torch.zeros(2), step=torch.zeros(2))
    with pytest.raises(jaxtyping.TypeCheckError, match="label"):
        Cond(torch.zeros(2), label=torch.zeros(3, 10))


def test_a_mistyped_option_reaches_our_own_refusal():
    with pytest.raises(ValueError, match=r"^scale must be"):
        LowRank(2, 2, rank=1, num_bases=1, omega=torch.nn.Identity(), scale="lernt")  # pyright: ignore


def test_the_checks_can_be_left_out():
    with unchecked():
        assert Linear(4, 5)(torch.zeros(2, 4), Cond(torch.zeros(2), label=torch.zeros(3, 10))).shape == (2, 5)
    with pytest.raises(jaxtyping.TypeCheckError):
        Cond(torch.zeros(2), label=torch.zeros(3, 10))


def test_the_package_itself_checks_nothing():
    files = [*(ROOT / "lorafusion").rglob("*.py")]
    assert files
    for word in ("beartype", "jaxtyped", "install_import_hook"):
        assert not [path.name for path in files if word in path.read_text()]

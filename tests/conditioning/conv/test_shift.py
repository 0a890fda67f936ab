"""Shift: norm(x + shift(emb)), written out."""

import pytest
import torch
import torch.nn.functional as F

from lorafusion.conditioning.conv.shift import Shift
from lorafusion.sites import Cond, GroupNorm, LayerNorm
from tests.conditioning.places import C, E, convolution

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("norm", [GroupNorm(2, C, eps=1e-6), LayerNorm([C, 4, 4])], ids=["group", "layer"])
def test_shift_is_added_before_the_norm(norm):
    norm = norm.double()
    site = convolution(norm)
    Shift().attach(site)
    x, emb = torch.randn(3, C, 4, 4), torch.randn(3, E)
    affine = site["norm_in"].affine
    shifted = x + (emb @ affine.weight.T + affine.bias).reshape(3, C, 1, 1)
    want = F.group_norm(shifted, 2, eps=1e-6) if isinstance(norm, GroupNorm) else F.layer_norm(shifted, (C, 4, 4))
    torch.testing.assert_close(norm(x, Cond(torch.zeros(3), emb=emb)), want)

"""Scale-and-shift: norm(x) * (1 + scale(emb)) + shift(emb), written out."""

import pytest
import torch
import torch.nn.functional as F

from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.sites import Cond, GroupNorm
from tests.conditioning.places import C, E, convolution

pytestmark = pytest.mark.usefixtures("float64")


def test_scale_and_shift_follow_the_norm():
    norm = GroupNorm(2, C)
    site = convolution(norm)
    ScaleShift().attach(site)
    x, emb = torch.randn(3, C, 4, 4), torch.randn(3, E)
    affine = site["norm_out"].affine  # its first C outputs are the scale, as in the original
    scale = (emb @ affine.weight[:C].T + affine.bias[:C]).reshape(3, C, 1, 1)
    shift = (emb @ affine.weight[C:].T + affine.bias[C:]).reshape(3, C, 1, 1)
    want = F.group_norm(x, 2) * (1 + scale) + shift
    torch.testing.assert_close(norm(x, Cond(torch.zeros(3), emb=emb)), want)


def test_with_shift_in_the_same_place():
    """They take different slots: a network can have both."""
    from lorafusion.conditioning.conv.shift import Shift

    site = convolution(GroupNorm(2, C))
    Shift().attach(site)
    ScaleShift().attach(site)
    with pytest.raises(ValueError, match="here: slot 'norm_out' is already taken by EmbScaleShift"):
        ScaleShift().attach(site)

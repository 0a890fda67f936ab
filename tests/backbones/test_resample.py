import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d, upfirdn

from lorafusion.backbones.resample import Down, Up

TAPS = [[1, 1], [1, 3, 3, 1], [1, 2, 5, 5, 2, 1]]


def resampled(x: np.ndarray, taps, *, up: bool) -> np.ndarray:
    """By scipy, along each axis: filter the zero-padded signal, shifted by half the filter, and keep the map's size."""
    f, k = np.array(taps) / np.sum(taps), len(taps)
    for axis in (-2, -1):
        n = x.shape[axis]
        if up:
            x = upfirdn(2 * f, x, up=2, axis=axis).take(range(k // 2 - 1, k // 2 - 1 + 2 * n), axis)
        else:
            x = upfirdn(f[::-1], x, axis=axis).take(range(k // 2, k // 2 + n, 2), axis)
    return x


@pytest.mark.parametrize("taps", TAPS, ids=str)
@pytest.mark.parametrize("up", [False, True])
def test_resampling_is_scipy_s(taps, up, float64):
    x = torch.randn(2, 3, 8, 6)
    ours = (Up if up else Down)(taps)(x)
    np.testing.assert_allclose(ours.numpy(), resampled(x.numpy(), taps, up=up), atol=1e-14)


def test_the_box_needs_no_filter(float64):
    """[1, 1] takes a short path; the filter's own gives the same, and up repeats every pixel."""
    x = torch.randn(2, 3, 8, 6)
    down, up = Down([1, 1]), Up([1, 1])
    short = down(x), up(x)
    down.box = up.box = False
    torch.testing.assert_close((down(x), up(x)), short, atol=1e-14, rtol=0)
    torch.testing.assert_close(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-14, rtol=0)


@pytest.mark.parametrize("taps", TAPS[:2], ids=str)
def test_a_pointwise_convolution_goes_first_only_where_that_is_exact(taps, float64):
    conv, up, x = torch.nn.Conv2d(3, 4, 1), Up(taps), torch.randn(2, 3, 4, 4)
    exact = torch.allclose(up(conv(x)), conv(up(x)), atol=1e-12)
    assert up.pointwise_first == exact


def test_a_padded_input_is_a_convolution_fused_with_the_filter(float64):
    """conv, then down(padded=True) = one convolution of stride 2 with the convolved kernels (NCSN++'s pyramid)."""
    conv, down, x = torch.nn.Conv2d(1, 1, 3, padding=2), Down([1, 3, 3, 1], padded=True), torch.randn(2, 1, 8, 8)
    kernel = torch.from_numpy(convolve2d(conv.weight[0, 0].detach().numpy(), down.kernel[0, 0].numpy()))
    one = F.conv2d(x, kernel[None, None], conv.bias, stride=2, padding=2)
    torch.testing.assert_close(down(conv(x)), one)
    assert down(conv(x)).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("taps", [[1], [1, 2, 1], []])
def test_an_odd_filter_is_refused(taps):
    with pytest.raises(ValueError, match="even number of taps"):
        Down(taps)

"""Against torch-fidelity on the same features and subsets, and against the sums written out."""

import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from lorafusion.metrics.kernel_distance import kernel_distance


def features(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return (torch.randn(n, 24, generator=torch.Generator().manual_seed(seed)) + shift).relu()


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_is_torch_fidelitys(shift):
    a, b = features(300, 0, shift), features(400, 1)
    expected = kid_features_to_metric(a, b, kid_subsets=20, kid_subset_size=100, verbose=False)
    mean, std = kernel_distance(a, b, subsets=20, subset_size=100)
    assert mean == pytest.approx(expected[KEY_METRIC_KID_MEAN], abs=1e-5)
    assert std == pytest.approx(expected[KEY_METRIC_KID_STD], abs=1e-5)


def test_is_the_sum_written_out():
    a, b = features(6, 0).double(), features(6, 1).double()

    def k(x, y) -> float:
        return (x @ y / 24 + 1).item() ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = sum((k(a[i], a[j]) + k(b[i], b[j])) / 30 for i, j in pairs if i != j)
    expected = within - sum(2 * k(a[i], b[j]) / 36 for i, j in pairs)
    assert kernel_distance(a, b, subsets=1, subset_size=6)[0] == pytest.approx(expected, rel=1e-12)


def test_has_no_bias():
    """Over many small subsets of one distribution the mean is 0 within its error."""
    mean, std = kernel_distance(features(2000, 0), features(2000, 1), subsets=200, subset_size=50)
    assert abs(mean) < 4 * std / 200**0.5


@pytest.mark.parametrize("size", [1, 31])
def test_refuses_subsets_that_do_not_fit(size):
    with pytest.raises(ValueError, match=r"subset_size=.*2 \.\. 30"):
        kernel_distance(features(30, 0), features(40, 1), subsets=1, subset_size=size)

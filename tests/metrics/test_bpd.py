"""Means of a bound's terms against numpy's over all images at once, however they come."""

import numpy as np
import pytest

from lorafusion.metrics.bpd import BitsPerDim

N, T = 23, 7


def terms():
    chance = np.random.default_rng(0)
    return (chance.random(N), *(chance.random((N, T)) for _ in range(3)))


@pytest.mark.parametrize("size", [1, 4, N])
def test_means_and_the_standard_error(size):
    metric, (prior, vb, mse, x0_mse) = BitsPerDim(), terms()
    for start in range(0, N, size):
        metric.add(*(term[start : start + size] for term in (prior, vb, mse, x0_mse)))
    found, totals = metric.measured(), prior + vb.sum(1)
    assert found.n == N
    assert found.total == pytest.approx(totals.mean(), rel=1e-12)
    assert found.error == pytest.approx(totals.std(ddof=1) / N**0.5, rel=1e-12)
    assert found.prior == pytest.approx(prior.mean(), rel=1e-12)
    assert found.total == pytest.approx(found.prior + found.vb.sum(), rel=1e-12)
    for name, term in (("vb", vb), ("mse", mse), ("x0_mse", x0_mse)):
        np.testing.assert_allclose(getattr(found, name), term.mean(0), rtol=1e-12)


def test_one_image_has_no_standard_error():
    metric = BitsPerDim()
    metric.add(*(term[:1] for term in terms()))
    assert metric.measured().error is None


def test_what_does_not_fit_is_refused():
    prior, vb, mse, x0_mse = terms()
    metric = BitsPerDim()
    with pytest.raises(ValueError, match="no image"):
        metric.measured()
    with pytest.raises(ValueError, match=r"each should be \(23, 7\)"):
        metric.add(prior, vb, mse[:, 1:], x0_mse)
    metric.add(prior, vb, mse, x0_mse)
    with pytest.raises(ValueError, match=r"each should be \(23, 7\)"):
        metric.add(prior, vb[:, 1:], mse[:, 1:], x0_mse[:, 1:])

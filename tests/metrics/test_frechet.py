"""The distance against closed forms and scipy's square root of a matrix."""

import numpy as np
import pytest
import scipy.linalg
import torch

from lorafusion.metrics.frechet import _congruent, frechet_distance, trace_sqrt_product
from lorafusion.metrics.moments import Moments


def features(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(n, dim, generator=draw) @ torch.randn(dim, dim, generator=draw)).relu()


def covariance(dim: int, seed: int, decay: float = 1.0) -> torch.Tensor:
    """Full rank, eigenvalues from 1 down to 10^-2 decay, eigenvectors at random."""
    draw = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dim, dim, generator=draw, dtype=torch.float64))[0]
    return q * torch.logspace(0, -2 * decay, dim, dtype=torch.float64) @ q.T


class TestFrechetDistance:
    def test_diagonal_gaussians_have_a_closed_form(self):
        draw = torch.Generator().manual_seed(0)
        m1, m2, s1, s2 = torch.rand(4, 20, generator=draw, dtype=torch.float64)
        expected = ((m1 - m2) ** 2 + (s1 - s2) ** 2).sum().item()
        assert frechet_distance(m1, (s1**2).diag(), m2, (s2**2).diag()) == pytest.approx(expected, rel=1e-12)

    def test_only_the_mean_differs(self):
        c = covariance(12, 0)
        shift = torch.arange(12, dtype=torch.float64)
        assert frechet_distance(shift, c, 0 * shift, c) == pytest.approx(shift.square().sum().item(), rel=1e-12)

    @pytest.mark.parametrize("dim", [2, 64, 300])
    def test_agrees_with_the_square_root_of_the_matrix(self, dim):
        a, b = covariance(dim, 1), covariance(dim, 2)
        m1, m2 = torch.randn(2, dim, dtype=torch.float64)
        root = np.real(scipy.linalg.sqrtm((a @ b).numpy()))  # pyright: ignore[reportArgumentType]
        expected = ((m1 - m2) ** 2).sum().item() + np.trace(a.numpy() + b.numpy() - 2 * root)
        assert frechet_distance(m1, a, m2, b) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("block", [1, 7, 16, 50, 64])
    def test_triangular_product_in_blocks(self, block):
        factor, b = torch.randn(50, 50, dtype=torch.float64).tril(), covariance(50, 1)
        torch.testing.assert_close(_congruent(factor, b, block).tril(), (factor.T @ b @ factor).tril())

    def test_is_symmetric(self):
        m1, m2 = torch.randn(2, 64, dtype=torch.float64)
        a, b = covariance(64, 1, decay=3), covariance(64, 2)
        assert frechet_distance(m1, a, m2, b) == pytest.approx(frechet_distance(m2, b, m1, a), rel=1e-11)

    @pytest.mark.parametrize("n", [30, 1000])
    def test_is_0_for_equal_moments_and_never_negative(self, n):
        m = Moments(64).add(features(n, 64))  # 30 vectors: a singular covariance
        distance = frechet_distance(m.mean, m.covariance, m.mean, m.covariance)
        assert 0 <= distance <= 1e-10 * m.covariance.trace().item()

    def test_rotating_both_changes_nothing(self):
        q = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64))[0]
        a, b, zero = covariance(32, 1), covariance(32, 2), torch.zeros(32, dtype=torch.float64)
        turned = frechet_distance(zero, q @ a @ q.T, zero, q @ b @ q.T)
        assert turned == pytest.approx(frechet_distance(zero, a, zero, b), rel=1e-10)


class TestSingular:
    """Where the covariance of few samples, or of dead features, has no Cholesky factor."""

    def closed_form(self, first: torch.Tensor, second: torch.Tensor, atol: float = 1e-12) -> None:
        """Covariances with common eigenvectors and eigenvalues ``first``, ``second``."""
        q = torch.linalg.qr(torch.randn(len(first), len(first), dtype=torch.float64))[0]
        got = trace_sqrt_product(q * first @ q.T, q * second @ q.T).item()
        assert got == pytest.approx((first * second).sqrt().sum().item(), rel=1e-12, abs=atol)

    def test_both_of_half_rank(self):
        first, second = torch.rand(2, 40, dtype=torch.float64) + 0.1
        first[20:], second[10:30] = 0, 0
        self.closed_form(first, second)

    def test_one_singular(self):
        first, second = torch.rand(2, 40, dtype=torch.float64) + 0.1
        second[5:] = 0
        self.closed_form(first, second)
        self.closed_form(second, first)

    def test_disjoint_supports(self):
        first, second = torch.eye(10, dtype=torch.float64)[:2]
        self.closed_form(first, second)

    def test_dead_features(self):
        a, b = covariance(20, 1), covariance(20, 2)
        expected = trace_sqrt_product(a, b).item()
        pad = torch.nn.functional.pad
        assert trace_sqrt_product(pad(a, (0, 5, 0, 5)), pad(b, (0, 5, 0, 5))).item() == pytest.approx(
            expected, rel=1e-12
        )

    def test_all_zero(self):
        zero = torch.zeros(5, 5, dtype=torch.float64)
        assert trace_sqrt_product(zero, zero).item() == 0

"""Moments against exact integer arithmetic, the distance against closed forms and scipy's square root of a matrix."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.multiprocessing as mp

from lorafusion.metrics.frechet import LSB, Moments, _congruent, frechet_distance, trace_sqrt_product


def features(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(n, dim, generator=draw) @ torch.randn(dim, dim, generator=draw)).relu()


def state(moments: Moments) -> list[torch.Tensor]:
    return [moments.count, moments.sum, moments.outer]


def equal(a: Moments, b: Moments) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(a), state(b), strict=True))


def covariance(dim: int, seed: int, decay: float = 1.0) -> torch.Tensor:
    """Full rank, eigenvalues from 1 down to 10^-2 decay, eigenvectors at random."""
    draw = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dim, dim, generator=draw, dtype=torch.float64))[0]
    return q * torch.logspace(0, -2 * decay, dim, dtype=torch.float64) @ q.T


class TestMoments:
    def test_equal_numpy_on_features_that_lie_on_the_grid(self):
        x = (features(5000, 16).double() / LSB).round() * LSB
        moments = Moments(16).add(x)
        assert len(moments) == 5000
        np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-13)
        np.testing.assert_allclose(moments.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-11, atol=1e-11)

    def test_rounding_to_the_grid_is_far_below_float32(self):
        x = features(2000, 16) / 100
        moments = Moments(16).add(x)
        np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-6, atol=1e-9)

    def test_sums_are_exact_at_the_largest_size(self):
        x = torch.full((2**13 + 1, 2), 4096.0, dtype=torch.float64)
        x[0] = torch.tensor([-4096 + LSB, LSB])
        moments = Moments(2).add(x)
        exact = [sum(Fraction(v) for v in column) / Fraction(LSB) for column in x.T.tolist()]
        assert moments.sum.tolist() == exact
        high, cross, low = (part.tolist() for part in moments.outer)
        product = sum(Fraction(a) * Fraction(b) for a, b in x.tolist()) / Fraction(LSB) ** 2
        assert high[0][1] * 2**40 + (cross[0][1] + cross[1][0]) * 2**20 + low[0][1] == product

    @pytest.mark.parametrize("size", [3, 64, 4096, 9000])
    def test_same_bits_for_any_batch_size_and_order(self, size):
        x = features(9001, 8)
        together, apart = Moments(8).add(x), Moments(8)
        for part in x.flip(0).split(size):
            apart.add(part)
        assert equal(together, apart)
        assert torch.equal(together.covariance, apart.covariance)

    def test_a_plain_float_sum_would_not_pass_the_test_above(self):
        x = features(9001, 8).double()
        assert not torch.equal(x.T @ x, torch.stack([part.T @ part for part in x.split(64)]).sum(0))

    def test_merging_gives_the_same_bits_as_adding(self):
        x = features(1000, 8)
        merged = Moments(8).add(x[700:]).merge(Moments(8).add(x[:700]))
        assert equal(merged, Moments(8).add(x))

    def test_two_processes_give_the_same_bits_as_one(self, tmp_path):
        mp.spawn(_one_of_two, (tmp_path,), nprocs=2)
        reduced = torch.load(tmp_path / "0.pt", weights_only=True)
        for mine, whole in zip(reduced, state(Moments(8).add(features(1001, 8))), strict=True):
            assert torch.equal(mine, whole)

    def test_without_distributed_all_reduce_changes_nothing(self):
        x = features(10, 8)
        assert equal(Moments(8).add(x).all_reduce(), Moments(8).add(x))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -4097.0])
    def test_refuses_what_the_grid_does_not_hold_and_takes_in_nothing_of_it(self, bad):
        x = features(10, 8)
        x[3, 3] = bad
        moments = Moments(8)
        with pytest.raises(ValueError, match="finite and at most 4096"):
            moments.add(x)
        assert len(moments) == 0

    def test_refuses_features_that_are_lost_on_the_grid(self):
        with pytest.raises(ValueError, match="scale them up"):
            _ = Moments(8).add(features(10, 8) * 1e-6).covariance

    @pytest.mark.parametrize("shape", [(10, 7), (8,), (2, 8, 8)])
    def test_refuses_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(N, 8\)"):
            Moments(8).add(torch.zeros(shape))

    def test_one_vector_has_no_covariance(self):
        with pytest.raises(ValueError, match="have 1"):
            _ = Moments(8).add(features(1, 8)).covariance


def _one_of_two(rank: int, folder) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    moments = Moments(8).add(features(1001, 8)[rank::2]).all_reduce()
    torch.save(state(moments), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


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

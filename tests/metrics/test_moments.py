"""Moments against exact integer arithmetic; the same bits for any batch size, order and number of processes."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from lorafusion.metrics.moments import LSB, Moments


def features(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(n, dim, generator=draw) @ torch.randn(dim, dim, generator=draw)).relu()


def state(moments: Moments) -> list[torch.Tensor]:
    return [moments.count, moments.sum, moments.outer]


def equal(a: Moments, b: Moments) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(a), state(b), strict=True))


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

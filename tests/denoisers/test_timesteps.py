"""Importance sampling of timesteps: unbiased, of least variance, and its state independent of how a batch was cut."""

import pytest
import torch

from lorafusion.denoisers.timesteps import LossSecondMoment
from lorafusion.draws import Draws


def filled(T=8, history=10, scale=None):
    """Every timestep has its losses: of t, scale[t] times +1 or -1."""
    chosen = LossSecondMoment(T, history)
    step = torch.arange(T).repeat_interleave(history)
    sign = torch.where(torch.arange(len(step)) % 2 == 0, 1.0, -1.0)
    chosen.update(torch.arange(len(step)), step, sign * (torch.arange(T) + 1.0 if scale is None else scale)[step])
    return chosen


def test_uniform_until_every_timestep_has_its_losses():
    chosen = LossSecondMoment(4, history=2)
    assert torch.equal(chosen.probabilities(), torch.full((4,), 0.25))
    chosen.update(torch.arange(7), torch.tensor([0, 1, 2, 3, 0, 1, 2]), torch.arange(7.0) + 1)
    assert torch.equal(chosen.probabilities(), torch.full((4,), 0.25))
    step, weight = chosen.draw(Draws(0, torch.arange(40_000)))
    assert torch.equal(weight, torch.ones(40_000))
    assert (torch.bincount(step) / 40_000 - 0.25).abs().max() < 0.01
    chosen.update(torch.arange(1), torch.tensor([3]), torch.tensor([4.0]))
    assert chosen.probabilities().unique().numel() == 4


def test_probabilities_are_the_roots_of_the_second_moments():
    p = filled().probabilities()
    torch.testing.assert_close(p, (torch.arange(8) + 1) / 36 * 0.999 + 0.001 / 8)
    step, _ = filled().draw(Draws(0, torch.arange(100_000)))
    assert (torch.bincount(step, minlength=8) / 100_000 - p).abs().max() < 0.006


def test_the_weighted_mean_is_that_of_uniform_timesteps_with_less_variance():
    loss = torch.tensor([300.0, 20.0, 5.0, 1.0, 1.0, 0.5, 0.2, 0.1])
    draws = Draws(0, torch.arange(50_000))
    step, weight = filled(scale=loss).draw(draws)
    weighted, uniform = loss[step] * weight, loss[draws.integers(8)]
    assert weighted.mean().item() == pytest.approx(loss.mean().item(), rel=0.01)
    assert weighted.std() < 0.2 * uniform.std()


def test_the_state_depends_on_the_images_alone():
    """Not on the order in which ranks and micro-batches hand them in; several losses of a timestep count in turn."""
    n = 200
    index, step = torch.arange(1000, 1000 + n), Draws(0, torch.arange(n)).integers(5)
    loss = Draws(1, torch.arange(n)).uniform()
    whole, shuffled, one_by_one = (LossSecondMoment(5, history=4) for _ in range(3))
    whole.update(index, step, loss)
    order = Draws(2, torch.arange(n)).uniform().argsort()
    shuffled.update(index[order], step[order], loss[order])
    for i in range(n):
        one_by_one.update(index[i : i + 1], step[i : i + 1], loss[i : i + 1])
    for other in (shuffled, one_by_one):
        assert torch.equal(other.losses, whole.losses)
        assert torch.equal(other.counts, whole.counts)
    for t in range(5):
        assert sorted(whole.losses[t].tolist()) == sorted(loss[step == t][-4:].tolist())


def test_a_loss_that_is_not_finite_is_left_out():
    chosen = LossSecondMoment(3, history=1)
    chosen.update(torch.arange(3), torch.arange(3), torch.tensor([1.0, float("nan"), float("inf")]))
    assert chosen.counts.tolist() == [1, 0, 0]
    assert chosen.losses.isfinite().all()

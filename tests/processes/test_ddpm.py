"""The discrete process against its definition, the reference's numbers, and a Gaussian's closed form."""

import math

import pytest
import torch

from lorafusion.draws import Draws
from lorafusion.processes.ddpm import DDPM, respaced


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_q_sample_equals_the_chain_of_single_steps(schedule):
    """x_t has mean sqrt(prod(1 - beta)) x0 and the variance that the recursion v <- (1 - beta) v + beta gives."""
    process = DDPM(50, schedule)
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(process.betas.tolist()):
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        step, one = torch.tensor([t]), torch.ones(1, 1, 1, 1, dtype=torch.float64)
        assert process.q_sample(one, step, 0 * one).item() == pytest.approx(mean, rel=1e-12)
        assert process.q_sample(0 * one, step, one).item() ** 2 == pytest.approx(variance, rel=1e-12)


def test_schedules_by_their_published_formulas():
    linear = DDPM(1000, "linear").betas
    torch.testing.assert_close(linear, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    bar = DDPM(1000, "cosine").alpha_bar
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 500, 900)]
    assert bar[499].item() == pytest.approx(f[1] / f[0], rel=1e-9)
    assert bar[899].item() == pytest.approx(f[2] / f[0], rel=1e-9)
    assert DDPM(4001, "cosine").betas.max() <= 0.999


def test_posterior_against_the_joint_gaussian():
    """q(x_{t-1} | x_t, x0) from conditioning a two-dimensional Gaussian, by its covariance."""
    process = DDPM(20)
    x0, x_t, t = 0.7, -0.4, 13
    bar_s, beta = process.alpha_bar[t - 1].item(), process.betas[t].item()
    var_s = 1 - bar_s
    cov = math.sqrt(1 - beta) * var_s
    var_t = (1 - beta) * var_s + beta
    mean_s, mean_t = math.sqrt(bar_s) * x0, math.sqrt(1 - beta) * math.sqrt(bar_s) * x0
    as_map = lambda v: torch.full((1, 1, 1, 1), v, dtype=torch.float64)  # noqa: E731
    mean, variance = process.posterior(as_map(x0), as_map(x_t), torch.tensor([t]))
    assert mean.item() == pytest.approx(mean_s + cov / var_t * (x_t - mean_t), rel=1e-10)
    assert variance.item() == pytest.approx(var_s - cov**2 / var_t, rel=1e-10)
    assert process.posterior(as_map(x0), as_map(x_t), torch.tensor([0]))[1].item() == 0


def test_denoise_undoes_q_sample_when_the_network_is_right():
    process = DDPM(100)
    draws = Draws(0, torch.arange(100))
    x0, eps = draws.normal(1, 4, 4, dtype=torch.float64), draws.normal(1, 4, 4, dtype=torch.float64)
    step = torch.arange(100)
    seen = {}

    def net(x, noise, step, label, augment):
        seen["x"], seen["step"] = x, step
        return eps

    sigma = process.sigmas[step]
    x = x0 + sigma.view(-1, 1, 1, 1) * eps
    prediction = process.denoise(net, x, sigma)
    torch.testing.assert_close(prediction.x0, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen["x"], process.q_sample(x0, step, eps))
    assert torch.equal(seen["step"], step)


def test_loss_is_the_mean_squared_error_of_eps():
    """A network that answers zero has loss mean(eps^2) = 1, whatever the data."""
    process = DDPM(1000)
    x0 = torch.randn(2000, 1, 8, 8)
    loss = process.loss(lambda x, *_: torch.zeros_like(x), x0, Draws(0, torch.arange(2000)))
    assert loss.shape == (2000,)
    assert loss.mean().item() == pytest.approx(1.0, abs=0.01)


def test_nearest_step_is_the_nearest():
    process = DDPM(40, "cosine")
    sigma = torch.rand(500, dtype=torch.float64) * process.sigmas[-2]
    dense = (sigma[:, None] - process.sigmas).abs().argmin(1)
    assert torch.equal(process.nearest_step(sigma), dense)
    assert torch.equal(process.nearest_step(process.sigmas), torch.arange(40))
    assert DDPM(1).nearest_step(torch.tensor([5.0])).item() == 0


def test_respacing():
    assert respaced(1000, 4, "even").tolist() == [0, 333, 666, 999]
    assert respaced(1000, 5, "stride").tolist() == [0, 200, 400, 600, 800]
    assert respaced(7, 7, "even").tolist() == list(range(7))
    with pytest.raises(ValueError, match="no integer stride"):
        respaced(1000, 999, "stride")
    with pytest.raises(ValueError, match=r"1 \.\. 10"):
        respaced(10, 11, "even")
    levels = DDPM(1000).levels(None)
    assert levels.shape == (1001,)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()

"""IDDPM against closed forms: schedules, gradients of its objectives, the bound, the discretised likelihood."""

import math

import pytest
import torch
from scipy.stats import norm

from lorafusion.draws import Draws
from lorafusion.processes.iddpm import IDDPM, discretised_log_likelihood


class Affine(torch.nn.Module):
    """eps = a x, v = b, with a and b trained."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (0.3, 0.1))

    def forward(self, x, noise, step, label, augment):
        self.seen = noise
        return torch.cat((self.a * x, self.b.expand_as(x)), dim=1)


def images(n, size=4):
    return Draws(1, torch.arange(n)).uniform(1, size, size, dtype=torch.float64) * 2 - 1


def test_timesteps_reach_the_network_between_0_and_1000():
    for T in (4000, 4001, 50):
        process, net = IDDPM(T), Affine()
        process.loss(net, images(200), Draws(0, torch.arange(200)))
        assert 0 <= net.seen.min() < 50
        assert 950 < net.seen.max() < 1000
        assert process.noise(torch.tensor([T]), torch.float64).item() == pytest.approx(1000)


def gradients(objective, T=100):
    net = Affine()
    IDDPM(T, objective=objective).loss(net, images(64), Draws(0, torch.arange(64))).mean().backward()
    return net.a.grad, net.b.grad


def test_hybrid_trains_the_mean_by_l_simple_alone_and_the_variance_by_the_bound_alone():
    simple, hybrid, vlb = (gradients(objective) for objective in ("simple", "hybrid", "vlb"))
    assert simple[1] is None or simple[1] == 0
    torch.testing.assert_close(hybrid[0], simple[0])
    torch.testing.assert_close(hybrid[1], vlb[1] / 1000)  # T / 1000 against T
    assert abs(vlb[0] / 1000 - hybrid[0]) > 1e-3


def test_discretised_likelihood_is_the_mass_of_a_pixels_bin():
    """Against the exact cumulative distribution; over all 256 values the masses add up to 1."""
    pixel = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(1, 1, 16, 16)
    for mean, std in ((0.2, 0.05), (-0.9, 0.3), (1.1, 0.02)):
        as_map = [torch.full_like(pixel, v) for v in (mean, math.log(std))]
        mass = discretised_log_likelihood(pixel, *as_map).exp().flatten()
        edges = (torch.arange(257, dtype=torch.float64) - 128) / 127.5
        exact = norm.cdf(edges[1:].numpy(), mean, std) - norm.cdf(edges[:-1].numpy(), mean, std)
        exact[0], exact[-1] = norm.cdf(edges[1], mean, std), 1 - norm.cdf(edges[-2], mean, std)
        torch.testing.assert_close(mass, torch.from_numpy(exact), rtol=0, atol=4e-4)
        assert mass.sum().item() == pytest.approx(1, abs=1e-9)


def test_variance_is_the_networks_choice_between_two_bounds():
    process = IDDPM(100)
    step, x = torch.tensor([0, 40, 99]), images(3)
    small, large = (process.reverse(x, step, x, torch.full_like(x, v)).log_variance[:, 0, 0, 0] for v in (0.0, 1.0))
    torch.testing.assert_close(large, process.betas[step].log())
    _, posterior = process.posterior(x, x, step)
    torch.testing.assert_close(small[1:], posterior[1:].log())
    assert small[0] == process.posterior(x[:1], x[:1], torch.tensor([1]))[1].log()  # at t = 0 the one after it


def test_a_network_without_v():
    process, plain = IDDPM(10), lambda x, *_: x
    assert process.denoise(plain, images(2), torch.ones(2, dtype=torch.float64)).v is None
    with pytest.raises(ValueError, match=r"backbone\.learned_variance=true"):
        process.loss(plain, images(2), Draws(0, torch.arange(2)))
    assert IDDPM(10, objective="simple").loss(plain, images(2), Draws(0, torch.arange(2))).shape == (2,)
    with pytest.raises(ValueError, match="1 or 2 channels; got 3"):
        process.loss(lambda x, *_: x.expand(-1, 3, -1, -1), images(2), Draws(0, torch.arange(2)))
    with pytest.raises(ValueError, match="objective must be"):
        IDDPM(objective="mse")

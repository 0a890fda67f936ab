"""The variational bound against closed forms: of a constant, and of Gaussian data, whose best denoiser is known."""

import math

import pytest
import torch
from scipy.stats import norm

from lorafusion.draws import Draws
from lorafusion.processes.bound import Bound
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.iddpm import IDDPM

N = 400


def of_constant(process):
    """Perfect where every pixel is 0: x_t = sqrt(1 - alpha_bar) eps gives eps back; v = 0: the posterior's variance."""

    def net(x, noise, step, label, augment):
        eps = x / process._at((1 - process.alpha_bar).sqrt(), step, x).view(-1, 1, 1, 1)
        return torch.cat((eps, torch.full_like(eps, -1.0)), dim=1)

    return net


def of_gaussian(process, mean, std, learned=True):
    """Perfect where pixels are N(mean, std^2): eps = (x_t - sqrt(alpha_bar) E[x0 | x_t]) / sqrt(1 - alpha_bar)."""
    asked = []

    def net(x, noise, step, label, augment):
        asked.append((int(step[0]), float(noise[0])))
        bar = process._at(process.alpha_bar, step, x).view(-1, 1, 1, 1)
        x0 = mean + bar.sqrt() * std**2 / (bar * std**2 + 1 - bar) * (x - bar.sqrt() * mean)
        eps = (x - bar.sqrt() * x0) / (1 - bar).sqrt()
        return torch.cat((eps, torch.full_like(eps, -1.0)), dim=1) if learned else eps

    return net, asked


def zeros(n):
    return torch.zeros(n, 1, 4, 4, dtype=torch.float64)


def test_of_a_constant():
    """Where p is q: every KL is 0, the prior is what alpha_bar_T leaves, and only L_0 remains."""
    process, seen = IDDPM(40), []
    bits = Bound(process)(of_constant(process), zeros(3), Draws(0, torch.arange(3)), progress=lambda *a: seen.append(a))
    assert bits.at_step.vb.shape == (3, 40)
    assert seen[-1] == (40, 40)
    assert bits.at_step.vb[:, 1:].abs().max() < 1e-12
    assert bits.at_step.mse.max() < 1e-20
    bar = process.alpha_bar[-1].item()
    torch.testing.assert_close(bits.prior, torch.full_like(bits.prior, (-bar - math.log(1 - bar)) / 2 / math.log(2)))
    std = math.exp(process.posterior_log_variance_clipped[0].item() / 2)
    mass = norm.cdf(1 / 255, 0, std) - norm.cdf(-1 / 255, 0, std)
    expected = torch.full((3,), -math.log2(mass)).double()
    torch.testing.assert_close(bits.at_step.vb[:, 0], expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(bits.total, bits.prior + bits.at_step.vb[:, 0])


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize(
    "process", [IDDPM(60), DDPM(60), IDDPM(60, objective="simple")], ids=["iddpm", "ddpm", "fixed"]
)
def test_of_gaussian_data(process, steps):
    """L_t = c^2 Var[x0 | x_t] / (2 beta~_t), c the posterior mean's factor of x0; of respaced steps too."""
    mean, std = 0.1, 0.05
    x0 = mean + std * Draws(3, torch.arange(N)).normal(1, 4, 4, dtype=torch.float64)
    net, asked = of_gaussian(process, mean, std, learned=process.__class__ is IDDPM and process.objective == "hybrid")
    bits = Bound(process, steps)(net, x0, Draws(0, torch.arange(N)))
    known = torch.tensor([t for t, _ in reversed(asked)])
    assert len(known) == (steps or 60)
    assert [noise for _, noise in reversed(asked)] == process.noise(known, torch.float64).tolist()
    bar = process.alpha_bar[known]
    assert (bar[-1], known[0]) == (process.alpha_bar[-1], 0)
    bar_s = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
    beta = 1 - bar / bar_s
    spread = std**2 * (1 - bar) / (bar * std**2 + 1 - bar)  # Var[x0 | x_t]
    near = {"rtol": 6 / (8 * N) ** 0.5, "atol": 1e-9}  # N images of 16 pixels: six standard errors
    torch.testing.assert_close(bits.at_step.x0_mse.mean(0), spread, **near)
    torch.testing.assert_close(bits.at_step.mse.mean(0), spread * bar / (1 - bar), **near)
    c2 = bar_s * beta**2 / (1 - bar) ** 2
    expected = (c2 * spread / 2 / (beta * (1 - bar_s) / (1 - bar)) / math.log(2))[1:]
    torch.testing.assert_close(bits.at_step.vb.mean(0)[1:], expected, **near)
    prior = (bar[-1] * (x0.square().mean() - 1) - (1 - bar[-1]).log()) / 2 / math.log(2)
    torch.testing.assert_close(bits.prior.mean(), prior)


def test_it_is_tight_for_a_perfect_model():
    """Gaussian pixels have Gaussian reverse steps: with their variances the bound is the entropy of a pixel's bins."""
    mean, std = 0.1, 0.05
    process = IDDPM(200)
    pixels = mean + std * Draws(3, torch.arange(N)).normal(1, 4, 4, dtype=torch.float64)
    x0 = (pixels * 127.5 + 127.5).round() / 127.5 - 1  # 8-bit
    perfect, _ = of_gaussian(process, mean, std, learned=False)

    def net(x, noise, step, label, augment):
        t = int(step[0])
        bar, beta = process.alpha_bar[t], process.betas[t]
        bar_s = process.alpha_bar[t - 1] if t else torch.ones(())
        spread = std**2 * (1 - bar) / (bar * std**2 + 1 - bar)
        variance = beta * (1 - bar_s) / (1 - bar) + bar_s * (beta / (1 - bar)) ** 2 * spread
        small = process.posterior_log_variance_clipped[t]
        v = (variance.log() - small) / (beta.log() - small)
        return torch.cat((perfect(x, noise, step, label, augment), torch.full_like(x, float(2 * v - 1))), dim=1)

    bits = Bound(process)(net, x0, Draws(0, torch.arange(N)))
    entropy = math.log2(std * math.sqrt(2 * math.pi * math.e) * 127.5)
    assert bits.total.mean().item() == pytest.approx(entropy, abs=0.03)
    loose = Bound(process)(of_gaussian(process, mean, std)[0], x0, Draws(0, torch.arange(N)))
    assert loose.total.mean() > bits.total.mean() + 0.3  # of the posterior's variances


def test_it_is_the_mean_of_the_vlb_objective():
    """T times a uniformly drawn term is an unbiased estimate of their sum."""
    process = IDDPM(10, objective="vlb")
    net = of_constant(process)
    estimate = process.loss(net, zeros(20_000), Draws(0, torch.arange(20_000))).mean()
    bits = Bound(process)(net, zeros(1), Draws(0, torch.arange(1)))
    assert estimate.item() == pytest.approx(bits.at_step.vb.sum().item(), rel=0.1)


def test_steps_there_are_not():
    for steps in (61, -1):
        with pytest.raises(ValueError, match=r"1 \.\. 60"):
            Bound(IDDPM(60), steps)

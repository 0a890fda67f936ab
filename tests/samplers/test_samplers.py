"""Every sampler on data whose denoiser is known in closed form: x0 ~ N(mu, s^2), D(x; sigma) = mu + w (x - mu).

w = s^2 / (s^2 + sigma^2). Then the marginals along the way, the ODE's solution and the end's law are exact.
"""

import math
from itertools import pairwise

import pytest
import torch

from lorafusion.draws import Draws
from lorafusion.processes import Prediction
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.edm import EDM
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.ddim import DDIM
from lorafusion.samplers.heun import Heun

MU, S = 0.3, 0.2
N = 5_000
PROCESSES = [DDPM(1000), EDM()]


def denoise(x, sigma):
    w = S**2 / (S**2 + sigma.view(-1, 1, 1, 1) ** 2)
    return Prediction(MU + w * (x - MU), v=torch.full_like(x, 0.5))


def draw(sampler, process, n=N):
    return sampler(denoise, process, Draws(0, torch.arange(n)), (1, 1, 1)).flatten()


@pytest.mark.parametrize("process", PROCESSES, ids=["ddpm", "edm"])
@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(steps=1000, clip=False),
        Ancestral(steps=500, variance="large", clip=False),
        Ancestral(steps=500, variance="learned", clip=False),
        DDIM(steps=200, clip=False),
        DDIM(steps=1000, eta=1.0, clip=False),
        Heun(steps=40),
        Heun(steps=120, churn=10.0),
    ],
    ids=["ancestral", "ancestral-large", "ancestral-learned", "ddim", "ddim-eta", "heun", "heun-churn"],
)
def test_samples_have_the_law_of_the_data(sampler, process):
    x = draw(sampler, process)
    assert x.mean().item() == pytest.approx(MU, abs=4 * S / math.sqrt(N) + 0.002)
    assert x.std().item() == pytest.approx(S, rel=0.04)


def ode_solution(process, sigma_max):
    """dx/dsigma = (x - D) / sigma has x(0) = MU + S (x(sigma_max) - MU) / sqrt(S^2 + sigma_max^2)."""
    start = process.prior_std(sigma_max) * Draws(0, torch.arange(50)).normal(1, dtype=torch.float64)[:, 0]
    return MU + S * (start - MU) / (S**2 + sigma_max**2).sqrt()


@pytest.mark.parametrize("process", PROCESSES[1:], ids=["edm"])
def test_orders_of_convergence(process):
    """Halving the step divides Euler's (DDIM's) error by 2 and Heun's by 4."""
    exact = ode_solution(process, torch.tensor(80.0, dtype=torch.float64))
    for make, order in ((lambda n: DDIM(n, clip=False), 1), (lambda n: Heun(n), 2)):
        errors = [(draw(make(n), process, 50) - exact).abs().max() for n in (40, 80, 160)]
        for coarse, fine in pairwise(errors):
            assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_ddim_with_eta_1_is_ancestral_sampling():
    for process in PROCESSES:
        a, b = draw(DDIM(60, eta=1.0, clip=False), process, 50), draw(Ancestral(60, clip=False), process, 50)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_ancestral_step_is_ddpm_posterior_in_its_own_coordinates():
    """One step from t to t - 1 in x = x0 + sigma n equals the posterior of q written in x_t (Ho et al. 2020, eq. 7)."""
    process, t = DDPM(1000), 613
    x0 = torch.full((50, 1, 1, 1), 0.25, dtype=torch.float64)
    calls = []

    def known(x, sigma):
        calls.append(x)
        return Prediction(x0)

    class OneLevel(DDPM):
        def levels(self, steps):
            return self.sigmas[[t, t - 1]]

    out = Ancestral(clip=False)(known, OneLevel(1000), Draws(0, torch.arange(50)), (1, 1, 1))
    bar_t, bar_s = process.alpha_bar[t], process.alpha_bar[t - 1]
    draws = Draws(0, torch.arange(50))
    x_t, z = draws.normal(1, 1, 1, dtype=torch.float64), draws.normal(1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(calls[0] * bar_t.sqrt(), x_t)  # the prior is N(0, I) in x_t
    mean, variance = process.posterior(x0, x_t, torch.full((50,), t))
    torch.testing.assert_close(out * bar_s.sqrt(), mean + variance.view(-1, 1, 1, 1).sqrt() * z)


@pytest.mark.parametrize("sampler", [Ancestral(20), DDIM(20, eta=0.5), Heun(20, churn=5)])
def test_image_k_is_the_same_in_any_batch_and_progress_counts_to_the_end(sampler):
    seen = []
    whole = sampler(denoise, PROCESSES[0], Draws(0, torch.arange(10)), (2, 3, 3))
    part = sampler(denoise, PROCESSES[0], Draws(0, torch.tensor([7])), (2, 3, 3), progress=lambda *a: seen.append(a))
    assert torch.equal(whole[7], part[0])
    assert seen[-1] == (20, 20)


def test_clip_and_bad_settings():
    wild = lambda x, sigma: Prediction(torch.full_like(x, 9.0))  # noqa: E731
    assert Ancestral(20)(wild, PROCESSES[0], Draws(0, torch.arange(3)), (1, 1, 1)).max() <= 1
    with pytest.raises(ValueError, match="eta"):
        DDIM(eta=2)
    with pytest.raises(ValueError, match="continuous"):
        Ancestral(None)(denoise, EDM(), Draws(0, torch.arange(3)), (1, 1, 1))
    unlearned = lambda x, sigma: Prediction(x)  # noqa: E731
    with pytest.raises(ValueError, match="learned"):
        Ancestral(5, "learned")(unlearned, PROCESSES[0], Draws(0, torch.arange(3)), (1, 1, 1))

"""The continuous process against the conditions that its preconditioning is derived from (Karras et al. 2022, B.6)."""

import pytest
import torch

from lorafusion.draws import Draws
from lorafusion.processes.edm import EDM, rho_levels

SIGMA = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


def test_preconditioning_keeps_unit_variance_and_least_amplification():
    process = EDM(sigma_data=0.7)
    c = process.precondition(SIGMA)
    sd2 = 0.7**2
    torch.testing.assert_close(c.c_in**2 * (sd2 + SIGMA**2), torch.ones_like(SIGMA))  # input variance 1
    target = c.c_out**2 - ((1 - c.c_skip) ** 2 * sd2 + c.c_skip**2 * SIGMA**2)  # target variance 1
    torch.testing.assert_close(target, torch.zeros_like(SIGMA), rtol=0, atol=1e-12)
    for near in (c.c_skip - 1e-4, c.c_skip + 1e-4):  # c_skip makes c_out smallest
        assert ((1 - near) ** 2 * sd2 + near**2 * SIGMA**2 > c.c_out**2).all()
    torch.testing.assert_close(process.weight(SIGMA) * c.c_out**2, torch.ones_like(SIGMA))


def test_loss_of_a_zero_network_is_one_on_gaussian_data():
    """With F = 0 the effective target has unit variance, so every noise level's expected weighted loss is 1."""
    draws = Draws(1, torch.arange(4000))
    x0 = 0.5 * draws.normal(1, 8, 8, dtype=torch.float64)
    loss = EDM().loss(lambda x, *_: torch.zeros_like(x), x0, Draws(0, torch.arange(4000)))
    assert loss.shape == (4000,)
    assert loss.mean().item() == pytest.approx(1.0, abs=0.01)


def test_noise_levels_are_log_normal():
    seen = []

    def net(x, noise, *_):
        seen.append(4 * noise)  # c_noise = ln(sigma) / 4
        return x

    EDM(P_mean=-1.2, P_std=1.2).loss(
        net, torch.zeros(50_000, 1, 1, 1, dtype=torch.float64), Draws(0, torch.arange(50_000))
    )
    assert seen[0].mean().item() == pytest.approx(-1.2, abs=0.02)
    assert seen[0].std().item() == pytest.approx(1.2, abs=0.02)


def test_rho_grid():
    sigma = rho_levels(18)
    assert sigma.shape == (19,)
    assert sigma[0].item() == pytest.approx(80)
    assert sigma[-2].item() == pytest.approx(0.002)
    assert sigma[-1] == 0
    torch.testing.assert_close(
        (sigma[:-1] ** (1 / 7)).diff().std(), torch.tensor(0.0, dtype=torch.float64), atol=1e-12, rtol=0
    )
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        rho_levels(18, sigma_min=3, sigma_max=1)

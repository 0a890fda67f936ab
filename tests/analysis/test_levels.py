"""Noise levels: every timestep is met exactly, sigmas are those that sampling goes through."""

import math

import numpy as np
import pytest
import torch

from lorafusion.analysis.axis import class_axis, round_up
from lorafusion.analysis.levels import asked_for, levels_of
from lorafusion.errors import UserError
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.edm import EDM, rho_levels
from lorafusion.processes.iddpm import IDDPM
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.heun import Heun


@pytest.mark.parametrize("process", [DDPM(37), DDPM(1000), IDDPM(400), DDPM(1000, "cosine")])
def test_levels_of_a_discrete_process_are_its_timesteps(process):
    levels = levels_of(process, Ancestral(), 12)
    step = levels.axis.place.astype(int)
    assert (step[0], step[-1], len(step)) == (0, process.num_steps - 1, 12)
    assert np.ptp(np.diff(step)) <= 1  # evenly, up to rounding
    assert process.nearest_step(levels.sigma).tolist() == step.tolist()
    assert torch.equal(levels.sigma, process.sigmas[step])
    every = levels_of(process, Ancestral(), process.num_steps)
    assert process.nearest_step(every.sigma).tolist() == [*range(process.num_steps)]
    assert len(levels_of(process, Ancestral(), 10**6).sigma) == process.num_steps


def test_levels_of_a_continuous_process_are_those_that_its_sampler_goes_through():
    assert torch.equal(asked_for(EDM(), Heun(3, 0.01, 10)).unique(), rho_levels(3, 0.01, 10)[:3].flip(0))
    levels = levels_of(EDM(), Heun(5, 0.01, 10), 4)
    torch.testing.assert_close(levels.sigma, torch.tensor([0.01, 0.1, 1, 10], dtype=torch.float64))
    np.testing.assert_allclose(levels.axis.place, np.log([0.01, 0.1, 1, 10]))
    at, written = levels.axis.ticks
    assert written == ["0.01", "0.1", "1", "10"]
    np.testing.assert_allclose(at, np.log([0.01, 0.1, 1, 10]))
    assert levels.called(3) == "sigma = 10"


def test_axes():
    low, high = levels_of(EDM(), Heun(5, 0.01, 10), 3).axis.edges
    assert high - low == pytest.approx(1.5 * math.log(1000))  # half a pixel more at each end
    assert class_axis([3, 5]).ticks == ([0, 1], ["3", "5"])
    assert len(class_axis([*range(1000)]).ticks[0]) <= 12
    assert [round_up(x) for x in (1, 1.1, 0.21, 399.6, 60)] == [1, 2, 0.25, 500, 100]
    at, written = levels_of(DDPM(1000), Ancestral(), 9).axis.ticks
    assert (at, written) == ([0, 500], ["0", "500"])
    assert levels_of(DDPM(1), Ancestral(), 9).axis.ticks == ([0], ["0"])


def test_one_point_is_refused():
    with pytest.raises(UserError, match="points=1: at least 2"):
        levels_of(DDPM(10), Ancestral(), 1)

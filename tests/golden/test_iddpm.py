"""The IDDPM process and the samplers compute what the original does, with its network and its random numbers."""

from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from lorafusion.denoisers.base import in_its_dtype
from lorafusion.processes.bound import Bound
from lorafusion.processes.ddpm import respaced
from lorafusion.processes.iddpm import IDDPM
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.ddim import DDIM
from tests.golden.recorded import Recorded
from tests.golden.reference import iddpm_net, reference, relative

NAMES = ["iddpm_uncond", "iddpm_cond"]


@cache
def network(name):
    return iddpm_net(reference(name))


def process(ref, objective="hybrid", spacing="even"):
    return IDDPM(ref.config["T"], "cosine", spacing, objective)


def label(ref):
    classes = ref.config["num_classes"]
    return None if classes is None else F.one_hot(ref["y"], classes).float()


@pytest.mark.parametrize("name", NAMES)
def test_tables(name):
    ref = reference(name)
    found = process(ref)
    assert relative(found.betas, ref["betas"]) < 1e-12
    assert relative(found.alpha_bar, ref["alphas_cumprod"]) < 1e-12
    log_variance = ref.get("posterior_log_variance_clipped")  # recorded in one of the files
    assert log_variance is None or relative(found.posterior_log_variance_clipped, log_variance) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_respacing(name):
    ref = reference(name)
    T, n = ref.config["T"], int(ref.config["respace"])
    assert torch.equal(respaced(T, n, "even"), ref["respaced_timesteps"])
    assert torch.equal(respaced(T, n, "stride"), ref["ddim_timesteps"])
    found = process(ref)
    levels = found.levels(n).flip(0)  # 0, then the levels, increasing
    betas = [found.transition_variance(t, s) / (1 + s**2) for s, t in pairwise(levels)]
    assert relative(torch.stack(betas), ref["respaced_betas"]) < 1e-10
    assert torch.equal(found.round(levels[1:]), levels[1:])


@pytest.mark.parametrize("name", NAMES)
def test_reverse_step(name):
    ref = reference(name)
    found, t = process(ref), ref["t"]
    x_t = found.q_sample(ref["x_start"], t, ref["noise"])
    assert relative(x_t, ref["x_t"]) < 1e-6
    with torch.no_grad():
        eps, v = network(name)(x_t, found.noise(t, x_t.dtype), t, label(ref)).chunk(2, dim=1)
    p = found.reverse(x_t, t, eps, (v + 1) / 2, clip=True)
    for key, value in (("p_mean", p.mean), ("p_log_variance", p.log_variance), ("p_xstart", p.x0)):
        for i in range(len(t)):
            assert relative(value[i], ref[key][i]) < 1e-5, (key, i)


@pytest.mark.parametrize("name", NAMES)
def test_losses(name):
    ref, net = reference(name), network(name)
    given = (net, ref["x_start"], ref["t"], ref["noise"], label(ref))
    found = {objective: process(ref, objective).loss_at(*given) for objective in ("simple", "hybrid", "vlb")}
    near = {"rtol": 1e-5, "atol": 0}
    torch.testing.assert_close(found["simple"], ref["loss_mse"], **near)
    torch.testing.assert_close(found["hybrid"], ref["loss"], **near)
    torch.testing.assert_close(found["hybrid"] - found["simple"], ref["loss_vb"], rtol=1e-5, atol=3e-7)
    torch.testing.assert_close(found["vlb"], ref["loss_vlb_objective"], **near)
    with torch.no_grad():  # KL is a sum of terms near 1, and at t = T - 1 it is 1e-7: that is float32's last digit
        torch.testing.assert_close(Bound(process(ref)).terms(*given).vb, ref["vb_bpd"], rtol=1e-5, atol=2e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_samples(name, sampler):
    ref, net = reference(name), in_its_dtype(network(name))
    steps = int(ref.config["respace"])
    draw = Ancestral(steps, "learned") if sampler == "ancestral" else DDIM(steps)
    found = process(ref, spacing="even" if sampler == "ancestral" else "stride")

    def denoise(x, sigma):
        return found.denoise(net, x, sigma, label(ref))

    x0 = draw(denoise, found, Recorded([ref["x_T"], *ref["chain_noise"]]), (3, 16, 16))
    assert relative(x0, ref[f"{sampler}_x0"]) < 1e-4

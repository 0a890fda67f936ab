"""The IDDPM process and the samplers compute what the original does, with its network and its random numbers."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F

from lorafusion.denoisers.base import in_its_dtype
from lorafusion.draws import Draws
from lorafusion.processes.ddpm import respaced
from lorafusion.processes.iddpm import IDDPM
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.ddim import DDIM
from tests.golden.reference import iddpm_net, reference, relative

NAMES = ["iddpm_uncond", "iddpm_cond"]
"""Given the network's recorded output everything else is held to 1e-5; with our own output, also as far as the network's
output is (test_networks.py: float32 alone costs iddpm_uncond 2e-5)."""


class Recorded(Draws):
    """Gives out recorded normal numbers instead of its own, one tensor a call."""

    def __init__(self, normals):
        super().__init__(0, torch.arange(len(normals[0])))
        self.normals = iter(normals)

    def normal(self, *shape, dtype=torch.float32):
        given = next(self.normals)
        assert given.shape[1:] == shape
        return given.to(dtype)


@cache
def network(name):
    return iddpm_net(reference(name))


def process(ref, objective="hybrid", spacing="even"):
    return IDDPM(ref.config["T"], "cosine", spacing, objective)


def label(ref):
    classes = ref.config["num_classes"]
    return None if classes is None else F.one_hot(ref["y"], classes).float()


def answer(ref):
    """A network that gives the recorded output, whatever it is asked."""
    return lambda *_: ref["model_out"]


@pytest.mark.parametrize("name", NAMES)
def test_tables(name):
    ref = reference(name)
    found = process(ref)
    assert relative(found.betas, ref["betas"]) < 1e-12
    assert relative(found.alpha_bar, ref["alphas_cumprod"]) < 1e-12
    if ref.get("posterior_log_variance_clipped") is not None:
        torch.testing.assert_close(
            found.posterior_log_variance_clipped, ref["posterior_log_variance_clipped"], rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("name", NAMES)
def test_respacing(name):
    ref = reference(name)
    T, n = ref.config["T"], int(ref.config["respace"])
    assert torch.equal(respaced(T, n, "even"), ref["respaced_timesteps"])
    assert torch.equal(respaced(T, n, "stride"), ref["ddim_timesteps"])
    found = process(ref)
    levels = found.levels(n).flip(0)  # 0, then the levels, increasing
    betas = [found.transition_variance(t, s) / (1 + s**2) for s, t in zip(levels, levels[1:], strict=False)]
    assert relative(torch.stack(betas), ref["respaced_betas"]) < 1e-10
    assert torch.equal(found.round(levels[1:]), levels[1:])


@pytest.mark.parametrize("name", NAMES)
def test_what_the_network_sees(name):
    ref = reference(name)
    assert relative(process(ref).q_sample(ref["x_start"], ref["t"], ref["noise"]), ref["x_t"]) < 1e-6
    torch.testing.assert_close(process(ref).noise(ref["t"], torch.float32), ref["model_t"])


@pytest.mark.parametrize("own", [False, True], ids=["recorded output", "own output"])
@pytest.mark.parametrize("name", NAMES)
def test_reverse_step(name, own):
    """The fixture's model_out is at x_start and p_mean at x_t, so the recorded output serves where it belongs."""
    ref, tolerance = reference(name), 1e-5
    found = process(ref)
    x = ref["x_t"] if own else ref["x_start"]
    with torch.no_grad():
        raw = network(name)(x, ref["model_t"], ref["t"], label(ref)) if own else ref["model_out"]
    p = found.reverse(x, ref["t"], *found._split(raw, x), clip=True)
    for key, value in (("p_mean", p.mean), ("p_log_variance", p.log_variance), ("p_xstart", p.x0)):
        print(name, own, key, relative(value, ref[key]))
    assert tolerance


@pytest.mark.parametrize("name", NAMES)
def test_losses(name):
    ref = reference(name)
    x0, t, noise, net = ref["x_start"], ref["t"], ref["noise"], network(name)
    with torch.no_grad():
        for key, objective in (("loss_mse", "simple"), ("loss", "hybrid"), ("loss_vlb_objective", "vlb")):
            got = process(ref, objective).loss_at(net, x0, t, noise, label(ref))
            print(name, key, ((got-ref[key])/ref[key]).abs().max())
        got = process(ref).variational_term(net, x0, t, noise, label(ref))
        print(name, 'vb', ((got-ref['vb_bpd'])/ref['vb_bpd']).abs().max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_samples(name, sampler):
    ref = reference(name)
    steps, net = int(ref.config["respace"]), network(name)
    make = Ancestral(steps, "learned") if sampler == "ancestral" else DDIM(steps)
    p = process(ref, spacing="even" if sampler == "ancestral" else "stride")
    draws = Recorded([ref["x_T"], *ref["chain_noise"]])

    def denoise(x, sigma):
        return p.denoise(in_its_dtype(net), x, sigma, label(ref))

    got = make(denoise, p, draws, tuple(ref["x_T"].shape[1:]))
    print(name, sampler, relative(got, ref[f"{sampler}_x0"]))

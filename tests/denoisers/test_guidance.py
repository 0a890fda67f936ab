"""Classifier-free guidance against the closed form of two Gaussian classes, and where it leaves the denoiser alone."""

import math

import pytest
import torch

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.guidance import Guidance
from lorafusion.denoisers.schedule import Constant
from lorafusion.errors import UserError
from lorafusion.processes import Prediction
from lorafusion.processes.edm import EDM
from lorafusion.samplers.heun import Heun
from lorafusion.tasks.drawer import choose_guidance


def labelled(x, sigma):
    return Prediction(x / (1 + sigma.view(-1, 1, 1, 1) ** 2) + 0.5, v=torch.ones_like(x))


def free(x, sigma):
    return Prediction(x / (1 + sigma.view(-1, 1, 1, 1) ** 2))


def test_it_extrapolates_from_the_answer_without_a_label():
    x, sigma = torch.randn(3, 1, 2, 2), torch.full((3,), 2.0)
    base = free(x, sigma).x0
    for scale in (0.0, 0.5, 3.0):
        made = Guidance(scale).between(labelled, free)(x, sigma)
        torch.testing.assert_close(made.x0, base + scale * 0.5)
        assert torch.equal(made.v, torch.ones_like(x))
    assert Guidance(1.0).between(labelled, free) is labelled


@pytest.mark.parametrize(("sigma", "inside"), [(0.3, False), (0.5, False), (0.6, True), (5.0, True), (5.1, False)])
def test_only_in_its_interval(sigma, inside):
    asked = []

    def counted(x, sigma):
        asked.append(1)
        return free(x, sigma)

    x, sigma = torch.randn(3, 1, 2, 2, dtype=torch.float64), torch.full((3,), sigma, dtype=torch.float64)
    made = Guidance(3.0, 0.5, 5.0).between(labelled, counted)(x, sigma)
    assert torch.equal(made.x0, labelled(x, sigma).x0) != inside
    assert len(asked) == inside  # outside it costs nothing


def test_samples():
    torch.manual_seed(0)
    net = NanoUNet(8, 1, (4, 4, 8), attn_resolutions=[4], num_classes=3)
    conditioning = Conditioning([Shift()], [ClassLoRA()])
    denoiser = Denoiser(net, conditioning, EDM(), torch.optim.Adam, Constant()).eval()
    for parameter in denoiser.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    label, seeds = torch.eye(3), torch.arange(3)
    plain, none, strong = (
        denoiser.sample(Heun(4), seeds, label, guidance=Guidance(scale)) for scale in (1.0, 0.0, 4.0)
    )
    assert torch.equal(plain, denoiser.sample(Heun(4), seeds, label))
    torch.testing.assert_close(none, denoiser.sample(Heun(4), seeds, torch.zeros(3, 3)))
    assert not torch.allclose(strong, plain, atol=1e-3)
    narrow = denoiser.sample(Heun(4), seeds, label, guidance=Guidance(4.0, 1e3))
    assert torch.equal(narrow, plain)


def test_what_the_command_line_gives():
    assert choose_guidance(1.0, [0.0, math.inf], labelled=False) is None
    assert choose_guidance(3.0, [0.3, 5.0], labelled=True) == Guidance(3.0, 0.3, 5.0)
    with pytest.raises(UserError, match="unconditional"):
        choose_guidance(2.0, [0.0, math.inf], labelled=False)
    for between in ([5.0, 1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(UserError, match=r"guidance=2\.0 guidance_between="):
            choose_guidance(2.0, between, labelled=True)


def test_wrong_settings():
    for wrong in ((-1.0,), (2.0, 5.0, 5.0), (2.0, -1.0), (2.0, math.inf)):
        with pytest.raises(ValueError, match="guidance must be"):
            Guidance(*wrong)

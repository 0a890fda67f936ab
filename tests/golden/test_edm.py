"""The EDM process and Heun's sampler compute what the original does, with its networks and its random numbers.

The denoised images and the gradients are in test_networks.py.
"""

import pytest
import torch

from lorafusion.denoisers.base import in_its_dtype
from lorafusion.processes.edm import EDM
from lorafusion.samplers.heun import Heun
from tests.golden.recorded import Recorded
from tests.golden.reference import edm_net, reference, relative

NAMES = ["edm_uncond", "edm_cond_augment", "edm_uclora"]


@pytest.mark.parametrize("name", NAMES)
def test_loss_of_each_image(name):
    """Of the sigma and noise that were drawn there: the mean of the recorded map."""
    ref, process = reference(name), EDM()
    normal = (ref["sigma"].log() - process.P_mean) / process.P_std
    draws = Recorded([normal[:, None], ref["noise"]])
    loss = process.loss(edm_net(ref), ref["clean"], draws, ref.get("class_labels"), ref.get("augment_labels"))
    torch.testing.assert_close(loss, ref["loss"].flatten(1).mean(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_heun(name):
    ref, process = reference(name), EDM()
    net = in_its_dtype(edm_net(ref))

    def denoise(x, sigma):
        return process.denoise(net, x, sigma, ref.get("class_labels"))

    x0 = Heun(steps=8)(denoise, process, Recorded([ref["latents"]]), (3, 16, 16))
    assert relative(x0, ref["heun_8_steps"]) < 1e-4

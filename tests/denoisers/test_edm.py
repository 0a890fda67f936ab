"""EDM's denoiser: augmentation in training alone, and the network is told of it."""

import pytest
import torch

from lorafusion.conditioning import Conditioning
from lorafusion.denoisers.augment import Augment
from lorafusion.denoisers.edm import EDMDenoiser
from lorafusion.denoisers.schedule import Constant
from lorafusion.draws import Draws
from lorafusion.processes.edm import EDM
from lorafusion.sites import Network

N = 32


class Spy(Network):
    """Notes what it is given."""

    resolution, channels, num_steps = 8, 1, None

    def __init__(self, augment_dim=9, num_classes=None):
        super().__init__()
        self.augment_dim, self.num_classes = augment_dim, num_classes
        self.weight = torch.nn.Parameter(torch.ones(()))

    def sites(self):
        return iter(())

    def forward(self, x, noise, step=None, label=None, augment=None):
        self.x, self.label, self.augment = x, label, augment
        return self.weight * x


def make(p: float | None = 0.5, **net):
    augment = None if p is None else Augment(p)
    return EDMDenoiser(Spy(**net), Conditioning(), EDM(), torch.optim.Adam, Constant(), augment=augment)


def batch():
    index = torch.arange(N)
    return {"image": Draws(7, index).uniform(1, 8, 8) * 2 - 1, "label": index % 3, "index": index}


def test_training_is_augmented_and_says_so():
    denoiser = make()
    denoiser.training_loss(batch(), draws := Draws(0, torch.arange(N)))
    _, labels = Augment(0.5)(batch()["image"], Draws(0, torch.arange(N)))
    assert torch.equal(denoiser.net.augment, labels)
    assert labels.abs().sum(0).min() > 0
    assert draws._calls > 3


def test_validation_and_sampling_are_not():
    denoiser, plain = make(), make(None)
    losses = [d.loss(batch(), Draws(0, torch.arange(N))) for d in (denoiser, plain)]
    assert torch.equal(*losses)
    assert denoiser.net.augment is None
    assert torch.equal(plain.training_loss(batch(), Draws(0, torch.arange(N))), losses[1])


def test_the_target_is_the_augmented_image():
    """At the least noise the network's input is the image that the loss compares with, so a mirrored one still fits."""
    denoiser = make(p=1.0)
    denoiser.process = EDM(P_mean=-9, P_std=1e-3)  # sigma = 1e-4
    denoiser.training_loss(batch(), Draws(0, torch.arange(N)))
    image, _ = Augment(1.0)(batch()["image"], Draws(0, torch.arange(N)))
    torch.testing.assert_close(denoiser.net.x, image / 0.5, atol=3e-3, rtol=0)


def test_a_network_without_the_input_is_not_told():
    denoiser = make(augment_dim=0)
    denoiser.training_loss(batch(), Draws(0, torch.arange(N)))
    assert denoiser.net.augment is None
    with pytest.raises(ValueError, match=r"backbone\.augment_dim=9; got 5"):
        make(augment_dim=5)


def test_labels_are_hidden_in_training_as_often_as_asked():
    net = Spy(num_classes=3)
    denoiser = EDMDenoiser(net, Conditioning(), EDM(), torch.optim.Adam, Constant(), label_dropout=0.25)
    index = torch.arange(4000)
    given = {"image": torch.zeros(4000, 1, 8, 8), "label": index % 3, "index": index}
    denoiser.training_loss(given, Draws(0, index))
    hidden = net.label.sum(1) == 0
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(net.label[~hidden].argmax(1), (index % 3)[~hidden])
    denoiser.loss(given, Draws(0, index))
    assert net.label.sum() == 4000
    with pytest.raises(ValueError, match="label_dropout"):
        EDMDenoiser(net, Conditioning(), EDM(), torch.optim.Adam, Constant(), label_dropout=2)

"""The denoiser: labels, sampling, and that training reaches what a closed form says is best."""

import pytest
import torch
from hydra.utils import instantiate

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.schedule import Constant
from lorafusion.draws import Draws
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.edm import EDM
from lorafusion.samplers.ddim import DDIM
from lorafusion.samplers.heun import Heun
from tests.tasks.runs import composed


def make(process=None, num_classes=None, attn=()) -> Denoiser:
    torch.manual_seed(0)
    process = process or DDPM(100)
    net = NanoUNet(8, 1, (4, 4, 8), attn_resolutions=[4], num_steps=process.num_steps, num_classes=num_classes)
    return Denoiser(net, Conditioning([Shift()], attn), process, torch.optim.Adam, Constant()).eval()


def test_one_hot_knows_unlabelled_images_and_unconditional_networks():
    label = torch.tensor([2, -1, 0])
    assert make().one_hot(label) is None
    assert make(num_classes=3).one_hot(label).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("sampler", [DDIM(5), Heun(4)], ids=["ddim", "heun"])
@pytest.mark.parametrize("process", [DDPM(100), EDM()], ids=["ddpm", "edm"])
def test_image_k_depends_on_seed_k_alone(process, sampler):
    """Bit for bit: whatever else is drawn beside it, in whatever order, and however far the batch is filled."""
    denoiser = make(process)
    seeds = torch.arange(20)
    whole = denoiser.sample(sampler, seeds, batch_size=8)
    assert whole.shape == (20, 1, 8, 8)
    assert whole.abs().max() <= 1
    assert torch.equal(denoiser.sample(sampler, seeds.flip(0), batch_size=8), whole.flip(0))
    assert torch.equal(denoiser.sample(sampler, torch.tensor([13]), batch_size=8), whole[13:14])
    other = denoiser.sample(sampler, seeds, batch_size=20)
    torch.testing.assert_close(other, whole, rtol=1e-4, atol=1e-4)  # networks round differently at other sizes
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("name", ["iddpm", "edm"])
def test_in_the_u_nets_too_an_image_is_the_same_in_any_place(name):
    """Whatever shard it falls into: another place in a micro-batch, other neighbours, a micro-batch that is padded."""
    network = {"iddpm": "iddpm_32", "edm": "ddpmpp_32"}[name]
    small = ("backbone.model_channels=32", "backbone.num_blocks=1", "data.resolution=16", "data.channels=3")
    denoiser = instantiate(
        composed(f"denoiser={name}", f"process={name}", f"backbone={network}", "data=synthetic", *small).denoiser,
        _convert_="all",
    ).eval()
    with torch.no_grad():
        for parameter in denoiser.net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # nothing is zero, as last layers are at first
    seeds = torch.arange(20)
    whole = denoiser.sample(DDIM(2), seeds, batch_size=8)
    order = torch.randperm(20)
    assert torch.equal(denoiser.sample(DDIM(2), seeds[order], batch_size=8), whole[order])
    assert torch.equal(denoiser.sample(DDIM(2), seeds[3:], batch_size=8), whole[3:])


def test_labels_follow_their_images_through_the_batches():
    denoiser = make(num_classes=3, attn=[ClassLoRA()])
    for parameter in denoiser.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    label = torch.eye(3)[torch.tensor([0, 1, 2, 1, 0])]
    whole = denoiser.sample(DDIM(5), torch.arange(5), label, batch_size=2)
    for k in range(5):
        alone = denoiser.sample(DDIM(5), torch.tensor([k]), label[k : k + 1], batch_size=2)
        torch.testing.assert_close(alone[0], whole[k])
    other = denoiser.sample(DDIM(5), torch.arange(5), label.flip(1), batch_size=2)
    assert not torch.equal(other[0], whole[0])  # class 2 instead of 0
    assert torch.equal(other[1], whole[1])  # class 1 either way


def test_progress_counts_evaluations_over_all_batches():
    seen = []
    make().sample(DDIM(5), torch.arange(5), batch_size=2, progress=lambda *a: seen.append(a))
    assert seen == [(k + 1, 15) for k in range(15)]


def test_training_learns_a_data_set_of_one_image():
    """Of a single image the best D(x; sigma) is the image itself: the loss goes to 0 and samples are that image."""
    denoiser = make(EDM())
    image = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    optimizer = torch.optim.Adam(denoiser.net.parameters(), lr=5e-3)
    batch = {"image": image.expand(16, -1, -1, -1), "label": torch.full((16,), -1)}
    losses = []
    for step in range(150):
        loss = denoiser.loss(batch, Draws(0, torch.arange(16) + 16 * step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    samples = denoiser.sample(Heun(10), torch.arange(4))
    assert (samples - image).abs().mean() < 0.15

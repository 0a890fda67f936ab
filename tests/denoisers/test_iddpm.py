"""IDDPM's denoiser: when its timesteps are weighted, and that their state survives ranks, micro-batches and kills."""

import signal
from types import SimpleNamespace

import pytest
import torch

from lorafusion import checkpoint
from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.denoisers.iddpm import IDDPMDenoiser
from lorafusion.denoisers.schedule import Constant
from lorafusion.draws import Draws
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.iddpm import IDDPM
from tests.tasks.runs import finish, losses, signal_at, tiny

T = 4


def make(timesteps="loss_second_moment", process=None):
    torch.manual_seed(0)
    process = process or IDDPM(T, objective="vlb")
    net = IDDPMUNet(8, 1, 8, (1, 1), 1, (4,), 2, num_steps=T)
    return IDDPMDenoiser(net, Conditioning([ScaleShift()]), process, torch.optim.Adam, Constant(), timesteps=timesteps)


def batch(start, n):
    index = torch.arange(start, start + n)
    return {"image": Draws(5, index).normal(1, 8, 8).clamp(-1, 1), "label": torch.full((n,), -1), "index": index}


def train(denoiser, batches):
    for given in batches:
        denoiser.training_loss(given, Draws(0, given["index"]))


def step_done(denoiser, world_size=1, gather=None):
    denoiser._trainer = SimpleNamespace(world_size=world_size)
    if gather:
        denoiser.all_gather = gather
    denoiser.on_before_optimizer_step(None)


def test_validation_is_uniform_and_weighs_nothing():
    denoiser, given = make(), batch(0, 40)
    uniform = make("uniform")
    assert uniform.timesteps is None
    expected = denoiser.process.loss(denoiser.net, given["image"], Draws(0, given["index"]))
    torch.testing.assert_close(denoiser.loss(given, Draws(0, given["index"])), expected)
    torch.testing.assert_close(uniform.training_loss(given, Draws(0, given["index"])), expected)
    assert denoiser.timesteps.counts.sum() == 0


def test_ranks_and_micro_batches_reach_the_same_state():
    one, cut, ranks = make(), make(), [make(), make()]
    train(one, [batch(0, 64)])
    step_done(one)
    assert one.timesteps.counts.sum() == 64
    train(cut, [batch(0, 16), batch(16, 48)])
    assert cut.timesteps.counts.sum() == 0  # only once the step is whole
    step_done(cut)
    for rank, denoiser in enumerate(ranks):
        train(denoiser, [batch(32 * rank, 32)])
    parts = [[torch.cat(p) for p in zip(*denoiser._seen, strict=True)] for denoiser in ranks]
    for denoiser in ranks:
        both = iter([torch.stack(pair) for pair in zip(*parts, strict=True)])
        step_done(denoiser, world_size=2, gather=lambda _, both=both: next(both))
    for other in (cut, *ranks):
        assert torch.equal(other.timesteps.counts, one.timesteps.counts)
        torch.testing.assert_close(other.timesteps.losses, one.timesteps.losses, rtol=1e-4, atol=1e-6)


SMALL = (
    *("process=iddpm", f"process.num_steps={T}", "process.objective=vlb", "denoiser=iddpm"),
    *("denoiser.timesteps=loss_second_moment", "backbone=iddpm_32", "backbone.model_channels=8", "images=480"),
    *("backbone.channel_mult=[1,1]", "backbone.num_blocks=1", "backbone.attn_resolutions=[4]", "backbone.heads=2"),
    *("conditioning/conv=[scale_shift]", "conditioning/attn=[time_lora]"),
)


def small(folder):
    dropped = ("backbone.widths", "backbone.attn_resolutions=[2,4]", "conditioning.attn.uc_lora")
    return (*(o for o in tiny(folder) if not o.startswith(dropped)), *SMALL)


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_timesteps(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(small(whole)) == 0
    assert signal_at((*small(killed), "resume=auto"), 17) == -signal.SIGKILL
    assert finish((*small(killed), "resume=auto")) == 0
    a, b = (checkpoint.load(checkpoint.newest(folder / "checkpoints"))["state_dict"] for folder in (whole, killed))
    assert a["timesteps.counts"].sum() == 480
    assert a["timesteps.counts"].min() >= 10  # it draws by importance
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert losses(whole) == losses(killed)


def test_wrong_settings():
    with pytest.raises(ValueError, match="process=iddpm"):
        make(process=DDPM(T))
    with pytest.raises(ValueError, match="timesteps must be"):
        make("importance")

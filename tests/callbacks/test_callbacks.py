"""Callbacks inside real training: when averages are in place, and that pictures and figures change nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback
from PIL import Image
from rich.console import Console

from lorafusion import checkpoint
from lorafusion.callbacks.checkpoint import STOP_SIGNALS
from lorafusion.callbacks.ema import averaged, trainable
from lorafusion.callbacks.progress import Progress
from lorafusion.tasks.train import build_trainer
from tests.tasks.runs import composed, finish, losses, tiny


class Watch(Callback):
    """Notes the weights that are in place while training and while validating."""

    def __init__(self):
        self.training, self.validating = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.training.append(weights(module))

    def on_validation_batch_end(self, trainer, module, *_):
        self.validating.append(weights(module))


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in trainable(module).values()])


def test_validation_sees_averages_and_training_never_does(tmp_path):
    cfg = composed(*tiny(tmp_path / "a", "images=160", "validate_every_images=80", "callbacks.ema.halflife_images=200"))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer, initial = build_trainer(cfg), weights(denoiser)
    trainer.callbacks.append(watch := Watch())
    trainer.fit(denoiser, datamodule=data)
    average = initial
    for step, raw in enumerate(watch.training):
        halflife = min(200, 0.05 * 16 * (step + 1))  # the config's ramp-up: at most 5 % of the images seen
        average = raw + (average - raw) * 0.5 ** (16 / halflife)
    assert len(watch.training) == 10
    seen = watch.validating[-1]
    torch.testing.assert_close(seen, average)
    assert not torch.equal(seen, watch.training[-1])
    assert torch.equal(weights(denoiser), watch.training[-1])  # put back after validation
    with averaged(trainer, denoiser):
        assert torch.equal(weights(denoiser), seen)
    assert torch.equal(weights(denoiser), watch.training[-1])


def test_grids_curves_progress_and_wandb_leave_training_as_it_is(tmp_path):
    plain, full = tmp_path / "plain", tmp_path / "full"
    length = ("images=160", "sampler=ddim", "sampler.steps=3")
    assert finish(tiny(plain, *length)) == 0
    everything = (
        "callbacks.sample_grid.every_images=64",
        "callbacks.sample_grid.n=5",
        "logger=[csv,wandb]",
        "logger.wandb.mode=offline",
        "tags=[a-tag]",
    )
    callbacks = ("ema", "checkpoint", "progress", "sample_grid", "curves")
    assert finish(tiny(full, *length, *everything, callbacks=callbacks)) == 0
    assert losses(plain) == losses(full)
    a, b = (checkpoint.load(checkpoint.newest(f / "checkpoints"))["state_dict"] for f in (plain, full))
    assert all(torch.equal(a[k], b[k]) for k in a)

    grids = sorted((full / "samples").glob("*.png"))
    assert [g.name for g in grids] == [f"grid_{n:012d}.png" for n in (64, 128, 160)]
    assert Image.open(grids[0]).size == (3 * 9 - 1, 2 * 9 - 1)
    assert not np.array_equal(*(np.asarray(Image.open(g)) for g in grids[:2]))
    assert Image.open(full / "curves.png").size[0] > 500
    _check_wandb(full)


def _check_wandb(folder: Path) -> None:
    """What the offline run recorded, read back by W&B's own tool."""
    (run,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    tool = Path(sys.executable).with_name("wandb")
    if not tool.is_file() or shutil.which("git") is None:
        pytest.skip("the wandb command is not installed beside this Python")
    asked = subprocess.run([tool, "leet", "inspect", "--summary", "--json", run], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    text = json.dumps(json.loads(asked.stdout))
    assert '"loss"' in text
    assert '"nimg"' in text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_how_fast_and_how_long(tmp_path, terminal, capsys):
    cfg = composed(*tiny(tmp_path / "a", "images=320", "callbacks.progress.every_s=0.0", callbacks=("progress",)))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer = build_trainer(cfg)
    (progress,) = (c for c in trainer.callbacks if isinstance(c, Progress))
    progress.enable = lambda: None
    progress.console = Console(force_terminal=terminal, width=160, file=sys.stdout)
    trainer.fit(denoiser, datamodule=data)
    said = capsys.readouterr().out
    assert "320 images in" in said
    assert "loss" in said
    assert ("320/320" in said) == terminal


def test_time_aside_is_not_counted_as_training():
    progress = Progress(100)
    progress._start, progress._at = (7.0, 0), (8.0, 50)
    with progress.aside():
        time.sleep(0.02)
    assert progress._start[0] >= 7.02
    assert progress._at[0] - progress._start[0] == pytest.approx(1)


class Fails(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("fails", [False, True])
def test_signal_handlers_are_put_back_whatever_happens(tmp_path, fails):
    before = [signal.getsignal(s) for s in STOP_SIGNALS]
    cfg = composed(*tiny(tmp_path / "a", "images=32"))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer = build_trainer(cfg)
    if fails:
        trainer.callbacks.append(Fails())
        with pytest.raises(RuntimeError, match="on purpose"):
            trainer.fit(denoiser, datamodule=data)
    else:
        trainer.fit(denoiser, datamodule=data)
    assert [signal.getsignal(s) for s in STOP_SIGNALS] == before

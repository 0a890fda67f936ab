"""A run that is killed at random moments and resumed computes, bit for bit, what it would have computed undisturbed."""

import random
import signal

import pytest
import torch

from lorafusion import checkpoint
from lorafusion.errors import UserError
from lorafusion.tasks import run_folder
from tests.tasks.runs import composed, finish, losses, run, signal_at, tiny

STEPS = 40
LENGTH = f"images={STEPS * 16}"


def newest(folder):
    return checkpoint.load(checkpoint.newest(folder / "checkpoints"))


def assert_same(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


VARIANTS = {
    "ddpm, no workers": ("data.num_workers=0", "conditioning/attn=[uc_lora,time_lora]"),
    "edm, two workers": ("data.num_workers=2", "process=edm"),
    "accumulated": ("data.num_workers=0", "trainer.accumulate_grad_batches=2", "data.hflip=true"),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_three_kills_change_nothing(tmp_path, variant):
    settings = (*VARIANTS[variant], LENGTH)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(tiny(whole, *settings)) == 0
    chance = random.Random(variant)
    for part in range(3):
        step = chance.randrange(part * STEPS // 4 + 2, (part + 1) * STEPS // 4)
        code = signal_at(tiny(killed, *settings, "resume=auto"), step)
        assert code == -signal.SIGKILL, "it ended before it was killed"
    assert newest(killed)["global_step"] < STEPS
    assert finish(tiny(killed, *settings, "resume=auto")) == 0

    a, b = newest(whole), newest(killed)
    assert a["images_seen"] == b["images_seen"] == STEPS * 16
    for part in ("state_dict", "optimizer_states", "ema"):
        assert_same(a[part], b[part], part)
    assert len(losses(whole)) == STEPS
    assert losses(whole) == losses(killed)


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        assert finish(tiny(folder, "images=160", f"seed={seed}")) == 0
    a, b, c = map(losses, folders)
    assert len(a) == 10
    assert a == b
    assert all(a[step] != c[step] for step in a)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_saves_at_the_next_step_and_exits_with_its_number(tmp_path, number):
    run = tiny(tmp_path / "a", LENGTH, "callbacks.checkpoint.every_images=1000000")
    assert signal_at(run, 5, number) == 128 + number
    (path,) = checkpoint.list_checkpoints(tmp_path / "a" / "checkpoints")
    saved = checkpoint.load(path)
    assert 5 <= saved["global_step"] < STEPS
    assert finish((*run, "resume=auto")) == 0
    assert set(losses(tmp_path / "a")) == set(range(STEPS))


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path):
    run = tiny(tmp_path / "a", "images=160")
    assert finish(run) == 0
    bad = checkpoint.list_checkpoints(tmp_path / "a" / "checkpoints")[-1]
    bad.write_bytes(bad.read_bytes()[:5000])
    before = losses(tmp_path / "a")
    assert finish((*run, "resume=auto")) == 0
    assert losses(tmp_path / "a") == before
    checkpoint.load(bad)  # written again


def test_a_folder_where_a_run_has_been_or_is_alive_is_refused(tmp_path):
    overrides = tiny(tmp_path / "a", "images=160")
    assert finish(overrides) == 0
    before = newest(tmp_path / "a")
    with pytest.raises(UserError, match="resume=auto continues it"):
        run(overrides)
    _, lock = run_folder.create(composed(*overrides, "resume=auto"))
    with lock:
        assert finish((*overrides, "resume=auto")) == 1  # another process is running
    assert finish((*overrides, "resume=auto")) == 0  # a dead one's lock does not hold
    assert_same(newest(tmp_path / "a")["state_dict"], before["state_dict"])

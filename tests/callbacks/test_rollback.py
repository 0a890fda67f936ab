"""callbacks.finite.policy=rollback: back to the newest checkpoint, on with the images after the step that failed."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback

from lorafusion import checkpoint
from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.ema import EMACallback
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.tasks.train import build_trainer
from tests.tasks.runs import CONF, composed, finish, losses, signal_at, tiny
from tests.tasks.test_resume import assert_same

NAN = float("nan")


class Spoil(Callback):
    """Puts a NaN into the images of these steps, of one rank."""

    def __init__(self, steps, rank=0):
        self.steps, self.rank = steps, rank

    def on_train_batch_start(self, trainer, module, batch, _):
        if trainer.global_step in self.steps and trainer.global_rank == self.rank:
            batch["image"][0] = NAN


class Watch(Callback):
    """Notes weights, averages and the optimizer's state as each step's update finds them."""

    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        averages = [a.clone() for a in callbacks_of(trainer, EMACallback)[0].ema.averages]
        state = {k: v.clone() for k, v in module.state_dict().items()}
        moments = [{k: v.clone() for k, v in s.items()} for s in optimizer.state_dict()["state"].values()]
        self.found.append((state, averages, moments))


def settings(folder, *overrides, callbacks=("ema", "finite", "checkpoint")):
    """A checkpoint every other step."""
    rollback = (
        "callbacks.finite.policy=rollback",
        "callbacks.checkpoint.every_images=32",
        "callbacks.checkpoint.keep=99",
    )
    return tiny(folder, *rollback, *overrides, callbacks=callbacks)


def fit(folder, steps, *overrides):
    cfg = composed(*settings(folder, *overrides))
    torch.manual_seed(0)
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer = build_trainer(cfg)
    trainer.callbacks = [Spoil(steps), *trainer.callbacks, watch := Watch()]
    trainer.fit(denoiser, datamodule=data)
    return denoiser, trainer, watch


def path(folder, images):
    return folder / "checkpoints" / f"{images:012d}.ckpt"


def assert_is(found, content):
    state, averages, moments = found
    assert_same(state, dict(content["state_dict"]))
    assert_same(averages, [*content["ema"].values()])
    assert_same(moments, [*content["optimizer_states"][0]["state"].values()])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_goes_back_and_on(tmp_path, accumulate, capsys):
    """Steps 6 and 7 are computed once more by hand, from the checkpoint that was made before step 4."""
    accumulated = f"trainer.accumulate_grad_batches={accumulate}"
    denoiser, trainer, watch = fit(tmp_path, [5], "images=128", accumulated)
    assert (trainer.global_step, denoiser.images_seen) == (8, 128)
    assert "step 5: " in (said := capsys.readouterr().out)
    assert "000000000064.ckpt; " in said
    content = checkpoint.load(path(tmp_path, 64))
    assert_is(watch.found[5], content)
    record = json.loads(next(tmp_path.glob("nonfinite_*.json")).read_text())
    assert (record["step"], record["back_to"], record["index"]) == (5, str(path(tmp_path, 64)), [*range(80, 96)])

    cfg = composed(*settings(tmp_path / "again"))
    by_hand, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    by_hand.load_state_dict(content["state_dict"])
    optimizer = by_hand.configure_optimizers()
    optimizer.load_state_dict(content["optimizer_states"][0])
    batches = iter(data.train_dataloader())
    for step, batch in zip(range(8), batches, strict=False):
        if step < 6:
            continue
        image, index = data.on_after_batch_transfer(batch, 0)["image"], batch["index"]
        optimizer.zero_grad()
        for rows in torch.arange(16).chunk(accumulate):
            micro = {"image": image[rows], "label": batch["label"][rows]}
            (by_hand.training_loss(micro, Draws(0, index[rows])).mean() / accumulate).backward()
        optimizer.step()
    assert_same(dict(by_hand.state_dict()), dict(denoiser.state_dict()))


def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(tmp_path):
    denoiser, _, watch = fit(tmp_path, [1], "images=48")
    assert_same(watch.found[1], watch.found[0])
    assert not watch.found[1][2]  # Adam has no state yet
    assert not torch.equal(denoiser.net.out.weight, watch.found[0][0]["net.out.weight"])


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    class Damage(Callback):
        def on_train_batch_start(self, trainer, module, batch, _):
            if trainer.global_step == 5:
                damaged = path(tmp_path, 64)
                damaged.write_bytes(damaged.read_bytes()[:999])

    cfg = composed(*settings(tmp_path, "images=96"))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer = build_trainer(cfg)
    trainer.callbacks = [Spoil([5]), Damage(), *trainer.callbacks, watch := Watch()]
    trainer.fit(denoiser, datamodule=data)
    assert_is(watch.found[5], checkpoint.load(path(tmp_path, 32)))


def test_so_many_times_to_one_checkpoint_and_no_more(tmp_path):
    often = "callbacks.finite.most=2"
    fit(tmp_path / "a", [3, 5, 6], "images=128", often)  # a checkpoint between 3 and 5, and another between 5 and 6
    with pytest.raises(UserError, match=r"step 5: .*, 2 times since the start\. Nothing was updated") as error:
        fit(tmp_path / "b", [2, 5], "images=128", often, "callbacks.checkpoint.every_images=1000000")
    assert "\n" not in str(error.value)


def test_it_asks_for_checkpoints(tmp_path):
    cfg = composed(*tiny(tmp_path, "callbacks.finite.policy=rollback", callbacks=("finite",)))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    with pytest.raises(UserError, match="add checkpoint to callbacks"):
        build_trainer(cfg).fit(denoiser, datamodule=data)


def spoiled(*steps, rank=0):
    return f"+callbacks.spoil={{_target_: tests.callbacks.test_rollback.Spoil, steps: {[*steps]}, rank: {rank}}}"


def newest(folder):
    return checkpoint.load(checkpoint.newest(folder / "checkpoints"))


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    """Killed after a rollback and before the next checkpoint, twice."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    length = ("images=640", "callbacks.checkpoint.every_images=160", spoiled(4, 15, 17, 28))
    assert finish(settings(whole, *length)) == 0
    for step in (6, 18, 34):
        code = signal_at(settings(killed, *length, "resume=auto"), step)
        assert code == -signal.SIGKILL, "it ended before it was killed"
    assert finish(settings(killed, *length, "resume=auto")) == 0
    a, b = newest(whole), newest(killed)
    assert a["images_seen"] == b["images_seen"] == 640
    for part in ("state_dict", "optimizer_states", "ema"):
        assert_same(a[part], b[part], part)
    assert [step for step, loss in losses(whole).items() if loss == "nan"] == [4, 15, 17, 28]
    assert losses(whole) == losses(killed)


@pytest.mark.slow
def test_all_processes_go_back_when_one_fails(tmp_path):
    """Two processes, of which the second has the NaN, end where one process ends."""
    one, two = tmp_path / "one", tmp_path / "two"
    sgd = "denoiser.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.1, fused: false}"
    plain = ("images=96", "process=edm", "conditioning/attn=[]", "backbone.attn_resolutions=[]", sgd)
    overrides = [o for o in settings(two, *plain) if "uc_lora" not in o]
    distributed = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", spoiled(3, rank=1)]
    command = [sys.executable, str(CONF.parent / "run.py"), *overrides, *distributed]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("back to the weights of") == 2
    assert finish((*(o.replace(str(two), str(one)) for o in overrides), spoiled(3))) == 0
    a, b = newest(one), newest(two)
    assert a["images_seen"] == b["images_seen"] == 96
    for part in ("state_dict", "ema"):
        for name, weight in a[part].items():
            torch.testing.assert_close(weight, b[part][name], rtol=1e-5, atol=1e-6)

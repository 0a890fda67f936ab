"""A non-finite loss or gradient never reaches a weight, an average, the optimizer's state or a checkpoint."""

import json

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback

from lorafusion import checkpoint
from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.ema import EMACallback
from lorafusion.callbacks.finite import Finite
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.tasks.train import build_trainer
from tests.tasks.runs import composed, tiny

BAD = 2  # this step's loss is not finite


class Spoil(Callback):
    """Puts ``value`` into the images of step BAD, or into one gradient there."""

    def __init__(self, where, value, steps=(BAD,)):
        self.where, self.value, self.steps, self.batches = where, value, steps, 0

    def on_train_batch_start(self, trainer, module, batch, _):
        if self.where == "loss" and trainer.global_step in self.steps:
            batch["image"][0] = self.value

    def on_after_backward(self, trainer, module):
        if self.where == "gradient" and trainer.global_step in self.steps:
            [*module.net.parameters()][3].grad.view(-1)[0] = self.value


def fit(tmp_path, where, value, policy, *, steps=(BAD,), most=10, accumulate=1):
    overrides = tiny(tmp_path, "images=64", f"trainer.accumulate_grad_batches={accumulate}")
    cfg = composed(*overrides)
    torch.manual_seed(0)
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer = build_trainer(cfg)
    trainer.callbacks = [Spoil(where, value, steps), Finite(str(tmp_path), policy, most), *trainer.callbacks]
    try:
        trainer.fit(denoiser, datamodule=data)
    finally:
        everything = [
            *denoiser.parameters(),
            *(s for o in trainer.optimizers for p in o.state.values() for s in p.values()),
        ]
        for ema in callbacks_of(trainer, EMACallback):
            everything += ema.ema.averages
        assert all(tensor.isfinite().all() for tensor in everything)
        for path in checkpoint.list_checkpoints(tmp_path / "checkpoints"):
            saved = checkpoint.load(path)
            assert all(v.isfinite().all() for part in ("state_dict", "ema") for v in saved[part].values())
    return denoiser, trainer


CASES = [("loss", float("nan")), ("gradient", float("-inf"))]


@pytest.mark.parametrize(("where", "value"), CASES)
def test_stop(tmp_path, where, value):
    with pytest.raises(UserError, match=rf"step {BAD}: .* Nothing was updated; .*policy=skip") as refused:
        fit(tmp_path, where, value, "stop")
    assert "\n" not in str(refused.value)
    (file,) = tmp_path.glob("nonfinite_*.json")
    record = json.loads(file.read_text())
    assert (record["step"], record["seed"]) == (BAD, 0)
    assert record["index"] == [*range(BAD * 16, (BAD + 1) * 16)]
    assert record["gradients"]
    newest = checkpoint.load(checkpoint.newest(tmp_path / "checkpoints"))
    assert newest["global_step"] == BAD


@pytest.mark.parametrize(("where", "value"), CASES)
@pytest.mark.parametrize("policy", ["skip", "zero"])
def test_go_on(tmp_path, where, value, policy):
    _, trainer = fit(tmp_path, where, value, policy)
    assert trainer.global_step == 4
    assert len([*tmp_path.glob("nonfinite_*.json")]) == 1


def test_a_skipped_step_changes_no_weight_and_a_good_one_does(tmp_path):
    class Watch(Callback):
        def __init__(self):
            self.weights = []

        def on_train_batch_end(self, trainer, module, *_):
            self.weights.append(torch.cat([p.detach().flatten().clone() for p in module.net.parameters()]))

    cfg = composed(*tiny(tmp_path, "images=64"))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    trainer = build_trainer(cfg)
    trainer.callbacks = [Spoil("gradient", float("nan")), Finite(str(tmp_path), "skip"), watch := Watch()]
    trainer.fit(denoiser, datamodule=data)
    same = [torch.equal(a, b) for a, b in zip(watch.weights, watch.weights[1:], strict=False)]
    assert [step for step, equal in enumerate(same, start=1) if equal] == [BAD]


def test_it_is_no_accident_when_it_does_not_end(tmp_path):
    with pytest.raises(UserError, match="3 times in a row"):
        fit(tmp_path, "gradient", float("nan"), "skip", steps=range(1, 4), most=3)


def test_any_micro_batch_counts(tmp_path):
    with pytest.raises(UserError, match=f"step {BAD}"):
        fit(tmp_path, "loss", float("inf"), "stop", accumulate=2)
    record = json.loads(next(tmp_path.glob("nonfinite_*.json")).read_text())
    assert record["index"] == [*range(BAD * 16, (BAD + 1) * 16)]


def test_what_was_written_replays_the_step(tmp_path):
    """The images, the seed and the weights that it found give the very loss that the step had."""
    with pytest.raises(UserError):
        fit(tmp_path, "gradient", float("nan"), "stop")
    record = json.loads(next(tmp_path.glob("nonfinite_*.json")).read_text())
    cfg = composed(*tiny(tmp_path / "again"))
    denoiser, data = (instantiate(node, _convert_="all") for node in (cfg.denoiser, cfg.data))
    denoiser.load_state_dict(checkpoint.load(checkpoint.newest(tmp_path / "checkpoints"))["state_dict"])
    batches = iter(data.train_dataloader())
    batch = next(b for b in batches if b["index"].tolist() == record["index"])
    batch = data.on_after_batch_transfer(batch, 0)
    loss = denoiser.training_loss(batch, Draws(record["seed"], batch["index"])).mean()
    assert repr(loss.item()) == record["losses"][0]  # to the last bit


def test_wrong_settings():
    with pytest.raises(ValueError, match="policy must be"):
        Finite(".", "ignore")
    with pytest.raises(ValueError, match="at least 1"):
        Finite(".", most=0)

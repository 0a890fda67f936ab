"""callbacks.metric: training is what it is without; the numbers and the best checkpoint; kills, processes, mistakes."""

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from lorafusion import checkpoint
from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.best import Best
from lorafusion.callbacks.metric import Metric
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.metrics.features import look
from lorafusion.metrics.frechet import frechet_distance
from lorafusion.metrics.moments import Moments
from lorafusion.pictures import to_uint8
from lorafusion.samplers.ddim import DDIM
from lorafusion.tasks import run_folder
from lorafusion.tasks.evaluate import evaluate
from lorafusion.tasks.train import build_trainer
from tests.tasks.ranks import Training, train
from tests.tasks.runs import composed, finish, losses, tiny
from tests.tasks.test_resume import assert_same, newest

NAME = "frechet_distance_module"
OWN = ("metric/extractor=module", "metric.extractor.module=tests.metrics.extractor.brightness.Brightness")
MEASURED = ("callbacks.metric.n=20", "callbacks.metric.every_images=64", "callbacks.metric.micro_batch=8")
SGD = "denoiser.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.0, fused: false}"
LENGTH = ("images=160", "sampler=ddim", "sampler.steps=3")
WITH = ("metric", "ema", "checkpoint")  # the order in which they are chosen is not that in which they act


def measured(folder: Path, *more: str) -> tuple[str, ...]:
    return tiny(folder, *LENGTH, *MEASURED, *OWN, *more, callbacks=WITH)


def record(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())[NAME]


def column(folder: Path, name: str = NAME) -> dict[int, float]:
    """images seen -> value"""
    with (folder / "metrics.csv").open(newline="") as lines:
        return {int(float(row["nimg"])): float(row[name]) for row in csv.DictReader(lines) if row.get(name)}


def interrupted(folder: Path, at: int, number: int) -> str:
    target = "_target_: tests.callbacks.test_metric.Interrupted"
    return f"callbacks.metric.sampler={{{target}, at: {at}, number: {number}, marker: {folder}.marker}}"


class Interrupted(DDIM):
    """Sends this process a signal before it draws the micro-batch of this number; once, however often it is made."""

    def __init__(self, at: int, number: int, marker: str):
        super().__init__(steps=3)
        self.at, self.number, self.marker, self.calls = at, number, Path(marker), 0

    def __call__(self, denoise, process, draws, shape, *more):
        self.calls += shape != (1, 1, 1)  # with a single pixel it only counts
        if self.calls == self.at and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), self.number)
        return super().__call__(denoise, process, draws, shape, *more)


def last(folder: Path) -> Path:
    return checkpoint.list_checkpoints(folder / "checkpoints")[-1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """The same run without a metric; with one; with one and killed in the middle of its second measurement."""
    folder = tmp_path_factory.mktemp("metric")
    found = {name: folder / name for name in ("plain", "measured", "killed")}
    assert finish(tiny(found["plain"], *LENGTH)) == 0
    assert finish(measured(found["measured"])) == 0
    killed = measured(found["killed"], interrupted(found["killed"], 5, signal.SIGKILL), "resume=auto")
    assert finish(killed) == -signal.SIGKILL
    assert [*column(found["killed"])] == [64]
    assert newest(found["killed"])["images_seen"] == 112  # the step that it is measured at is not over
    assert finish(killed) == 0
    return found


class TestTraining:
    @pytest.mark.parametrize("name", ["measured", "killed"])
    def test_is_what_it_is_without(self, runs, name):
        """Weights, averages, optimizer, losses; and a checkpoint holds nothing more."""
        plain, other = newest(runs["plain"]), newest(runs[name])
        assert plain["images_seen"] == 160
        assert plain.keys() == other.keys()
        for part in ("state_dict", "optimizer_states", "ema", "callbacks"):
            assert_same(plain[part], other[part], part)
        assert losses(runs["plain"]) == losses(runs[name])
        a, b = (last(runs[key]).stat().st_size for key in ("plain", name))
        assert a == b

    def test_kills_change_no_number(self, runs):
        assert column(runs["measured"]) == column(runs["killed"])
        a, b = record(runs["measured"]), record(runs["killed"])
        assert {**a, "run": "", "sampler": ""} == {**b, "run": "", "sampler": ""}


def by_hand(path: Path, folder: Path) -> float:
    """The distance at a checkpoint, from one batch of all seeds."""
    cfg = composed(*measured(folder))
    denoiser: Denoiser = run_folder.restore(path, cfg)
    metric, data = (instantiate(node, _convert_="all") for node in (cfg.metric, cfg.data))
    metric.extractor.load(torch.device("cpu"))
    drawn = denoiser.sample(instantiate(cfg.sampler), torch.arange(1_000_000, 1_000_020), batch_size=8)
    sides = []
    for images in (to_uint8(drawn).transpose(0, 3, 1, 2), data.arrays("train")[0]):
        features = look(metric.extractor, np.ascontiguousarray(images), {"features"}, torch.device("cpu")).features
        assert features is not None
        sides.append(Moments(features.shape[1]).add(features))
    a, b = sides
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


class TestNumbers:
    def test_are_the_averaged_weights_of_that_moment(self, runs):
        found = column(runs["measured"])
        assert [*found] == [64, 128, 160]
        path = last(runs["measured"])
        assert path.stem == f"{160:012d}"
        assert found[160] == by_hand(path, runs["measured"])

    def test_are_those_of_an_evaluation(self, runs):
        """To the last bit, of the best checkpoint, by its seeds."""
        (path,) = (runs["measured"] / "best").iterdir()
        settings = ("seeds=1000000-1000019", "micro_batch=8", f"paths.data_dir={runs['measured'].parent / 'data'}")
        evaluate(composed("task=evaluate", f"ckpt={path}", "metric=fid", *OWN, *settings))
        found = json.loads((runs["measured"] / "metrics" / path.stem / "metrics.json").read_text())[NAME]
        assert found[NAME] == record(runs["measured"])["best"][NAME]
        assert found["n"] == 20

    def test_the_record_says_how_they_were_made(self, runs):
        entry, found = record(runs["measured"]), column(runs["measured"])
        assert entry["images_seen"] == 160
        assert entry[NAME] == found[160]
        assert entry["n"] == 20
        assert entry["ema"] is True
        assert entry["seeds"] == "1000000-1000019"
        assert entry["sampler"] == {"name": "ddim", "steps": 3, "eta": 0.0, "clip": True}
        assert entry["evaluations"] == 3
        assert entry["reference"]["dataset"] == "synthetic train"
        assert len(entry["reference"]["sha256"]) == 64
        assert entry["versions"]["torch"] == torch.__version__
        assert entry["parameters"] == json.loads((runs["measured"] / "model.json").read_text())["parameters"]

    @pytest.mark.parametrize("name", ["measured", "killed"])
    def test_the_best_checkpoint_alone_stays(self, runs, name):
        found = column(runs[name])
        best = min(found, key=lambda images: found[images])
        (path,) = (runs[name] / "best").iterdir()
        assert path.name == f"{best:012d}.ckpt"
        assert record(runs[name])["best"] == {"images_seen": best, "file": f"best/{path.name}", NAME: found[best]}
        assert by_hand(path, runs[name]) == found[best]

    def test_the_best_checkpoint_goes_on_like_any_other(self, runs, tmp_path):
        (path,) = (runs["measured"] / "best").iterdir()
        assert finish(tiny(tmp_path / "on", *LENGTH, "images=192", f"resume={path}")) == 0
        assert finish(tiny(tmp_path / "whole", *LENGTH, "images=192")) == 0
        for part in ("state_dict", "optimizer_states", "ema"):
            assert_same(newest(tmp_path / "on")[part], newest(tmp_path / "whole")[part], part)


class FakeTrainer:
    def save_checkpoint(self, path: Path) -> None:
        checkpoint.save({}, path)


class TestBest:
    @pytest.mark.parametrize(("by", "best"), [("fid", 2), ("agreement", 3)])
    def test_the_direction_is_the_numbers_own(self, tmp_path, by, best):
        chosen = Best(tmp_path / "best", by)
        for images, value in ((1, 0.5), (2, 0.2), (3, 0.9), (4, float("nan")), (5, 0.5)):
            chosen.offer(FakeTrainer(), images, {by: value})  # pyright: ignore[reportArgumentType]
            chosen.remove_others()
        assert [path.stem for path in (tmp_path / "best").iterdir()] == [f"{best:012d}"]

    def test_a_damaged_or_missing_file_is_no_best(self, tmp_path):
        chosen = Best(tmp_path, "fid")
        chosen.offer(FakeTrainer(), 7, {"fid": 1.0})  # pyright: ignore[reportArgumentType]
        assert chosen.known(chosen.value) == chosen.value
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes()[:-9])
        assert chosen.known(chosen.value) is None
        path.unlink()
        assert chosen.known(chosen.value) is None

    def test_measured_otherwise_it_begins_anew(self, runs, tmp_path, capsys):
        callback = prepared(runs["measured"])
        assert callback.best.value == record(runs["measured"])["best"]
        assert prepared(runs["measured"], "callbacks.metric.n=21").best.value is None
        assert "which checkpoint is best begins anew" in capsys.readouterr().out


def prepared(folder: Path, *more: str) -> Metric:
    """The callback of a run, as it stands before the first step."""
    cfg = composed(*measured(folder, *more))
    trainer = build_trainer(cfg)
    trainer.datamodule = instantiate(cfg.data, _convert_="all")  # pyright: ignore[reportAttributeAccessIssue]
    (callback,) = callbacks_of(trainer, Metric)
    callback.on_fit_start(trainer, instantiate(cfg.denoiser, _convert_="all"))
    return callback


class TestBeforeTraining:
    def test_the_cost_is_said(self, tmp_path, capsys):
        prepared(tmp_path / "a", "process=edm", "sampler=heun", "sampler.steps=18")
        said = capsys.readouterr().out
        assert "20 images x 35 evaluations of the network every 64 images, 3 times" in said
        assert f"about {3 * 20 * 35 / (3 * 160):,.1%}" in said

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (("metric=kid",), r"callbacks.metric.n=20: metric.subset_size=1000: 2 \.\. 20"),
            (("metric=precision_recall", "metric.neighbours=20"), r"neighbours=20: 1 \.\. 19"),
            (("metric=inception_score", "metric.splits=21"), r"metric.splits=21: 1 \.\. 20"),
            (("callbacks.metric.by=agreement",), f"by=agreement: {NAME} gives {NAME}"),
            (("process=edm", "sampler=ancestral", "sampler.steps=null"), "callbacks.metric.sampler: "),
            (("reference=there_is_none.npz",), "no .npz of mu and sigma"),
        ],
    )
    def test_a_wrong_setting_is_one_line(self, tmp_path, wrong, said):
        with pytest.raises(UserError, match=said) as error:
            prepared(tmp_path / "a", *wrong)
        assert "\n" not in str(error.value)

    def test_an_extractor_of_other_images(self, tmp_path):
        narrow = ("metric.extractor.module=tests.callbacks.test_metric.ReadsThree",)
        with pytest.raises(UserError, match=r"cannot look at this run's images \(1, 8, 8\)") as error:
            prepared(tmp_path / "a", *narrow)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("wrong", ["n=1", "every_images=0", "micro_batch=0"])
    def test_numbers_out_of_range(self, tmp_path, wrong):
        with pytest.raises(Exception, match=f"callbacks.metric.{wrong}: at least"):
            prepared(tmp_path / "a", f"callbacks.metric.{wrong}")

    def test_a_metric_of_another_kind(self, tmp_path):
        with pytest.raises(Exception, match="judges by features"):
            build_trainer(composed(*tiny(tmp_path, "metric=digits", callbacks=("metric",))))


class ReadsThree(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, torch.ones(2, 3, 1, 1)).mean(dim=(2, 3))


def test_asked_to_stop_it_measures_no_more(tmp_path):
    """Within a measurement: that one is left out, and the checkpoint is saved at that very step."""
    run = measured(tmp_path / "a", interrupted(tmp_path / "a", 2, signal.SIGTERM))
    assert finish(run) == 128 + signal.SIGTERM
    assert newest(tmp_path / "a")["images_seen"] == 64
    assert not column(tmp_path / "a")
    assert not (tmp_path / "a" / "best").exists()


def test_two_processes_measure_what_one_does(tmp_path):
    """To the last bit, of equal weights: the rate is 0. The classifier sees some of the classes that were asked for."""
    found = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size) / "run"
        conditional = ("data.num_classes=4", "backbone.num_classes=4", "metric.extractor.num_classes=4")
        more = ("images=32", SGD, "callbacks.metric.by=agreement", "metric.extractor.block=4", *conditional)
        train(world_size, [Training("measured", measured(folder, *more))], tmp_path / f"ranks_{world_size}")
        found.append((record(folder), column(folder), column(folder, "agreement")))
    assert found[0] == found[1]
    entry, distances, agreement = found[0]
    assert agreement == {32: entry["agreement"]}
    assert 0 <= entry["agreement"] <= 1
    assert entry["best"] == {"images_seen": 32, "file": "best/000000000032.ckpt", "agreement": entry["agreement"]}
    assert distances[32] > 0
    assert entry["labels"] == "balanced"

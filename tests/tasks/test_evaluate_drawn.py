"""task=evaluate straight from a checkpoint: the images of task=sample, their numbers, and all that they depend on."""

import json
import multiprocessing
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import ListConfig

from lorafusion.errors import UserError
from lorafusion.tasks import drawer
from lorafusion.tasks.seeds import seed_sets, written
from tests.tasks import runs
from tests.tasks.runs import finish, run, tiny

FID = "frechet_distance_module"
OWN = ("metric/extractor=module", "metric.extractor.module=tests.metrics.extractor.brightness.Brightness")
DATA = ("data=synthetic", "data.resolution=8", "data.channels=1", "data.source.n=200")
DRAWN = ("sampler=heun", "sampler.steps=3", "label=balanced", "device=cpu", "micro_batch=16", "batch_size=16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "run"
    settings = ("images=64", "process=edm", "sampler=heun", "backbone.num_classes=10", "conditioning/conv=[shift]")
    assert finish(tiny(folder, *settings, "data.source.n=200")) == 0
    return folder


def settings(trained: Path, out: Path | None, *more: str) -> tuple[str, ...]:
    """Of task=evaluate; ``more`` takes the place of what is usual."""
    usual = ("task=evaluate", f"ckpt={trained}", "n=48", "metric=fid", *OWN, *DRAWN)
    changed = {setting.partition("=")[0] for setting in more}
    there = (f"paths.data_dir={trained.parent / 'data'}", *([f"out={out}"] if out else []))
    return (*(o for o in usual if o.partition("=")[0] not in changed), *there, *more)


def judged(trained: Path, out: Path, *more: str) -> dict:
    run(settings(trained, out, *more))
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(trained) -> dict:
    """By one process."""
    return judged(trained, trained.parent / "whole")[FID]


def ranked(rank: int, world_size: int, port: int, overrides: tuple[str, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs.run(overrides)


def started(world_size: int, overrides: tuple[str, ...]) -> list:
    """Processes that torchrun might have started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    processes = [context.Process(target=ranked, args=(rank, world_size, port, overrides)) for rank in range(world_size)]
    for process in processes:
        process.start()
    return processes


def same(found: dict, whole: dict) -> None:
    """Numbers to the last bit, of the very same images."""
    assert {key: found[key] for key in (FID, "n", "agreement", "samples") if key in found} == {
        key: whole[key] for key in (FID, "n", "agreement", "samples") if key in whole
    }
    assert found["made"]["sha256"] == whole["made"]["sha256"]


def test_says_what_task_sample_and_a_second_call_say(trained, tmp_path):
    """To the bit; with labels, so that a classifier says how often it agrees."""
    knows = "metric.extractor.num_classes=4"
    entry = judged(trained, tmp_path / "direct", knows)[FID]
    run(("task=sample", f"ckpt={trained}", f"out={tmp_path / 'drawn'}", "n=48", "formats=[npy]", *DRAWN))
    given = ("task=evaluate", "metric=fid", f"samples={tmp_path / 'drawn'}", f"out={tmp_path / 'given'}", *DATA)
    run((*given, *OWN, knows, f"paths.data_dir={trained.parent / 'data'}", "device=cpu"))
    same(entry, json.loads((tmp_path / "given/metrics.json").read_text())[FID])
    assert 0 <= entry["agreement"] < 1


def test_the_entry_says_all_that_it_depends_on(trained, whole):
    assert {"file": "000000000064.ckpt", "images_seen": 64, "ema": True}.items() <= whole["checkpoint"].items()
    assert whole["checkpoint"] == whole["made"]["checkpoint"]
    assert (whole["n"], whole["nfe"], whole["samples"]["n"]) == (48, 5, 48)
    model = json.loads((trained / "model.json").read_text())
    assert whole["parameters"] == model["parameters"]
    made = whole["made"]
    assert made["sampler"]["_target_"] == "lorafusion.samplers.heun.Heun"
    assert made["sampler"]["steps"] == 3
    assert (made["seeds"], made["labels"]["asked"], made["guidance"]) == (["0-47"], "balanced", None)
    assert len(made["checkpoint"]["sha256"]) == len(whole["extractor"]["weights_sha256"]) == 64
    assert whole["extractor"]["name"] == "module"
    assert whole["extractor"]["resize"] == "none"
    assert (whole["reference"]["n"], whole["reference"]["dataset"]) == (200, "synthetic train")
    assert len(whole["reference"]["sha256"]) == 64
    assert {"torch", "lorafusion", "git"} <= whole["versions"].keys()
    assert made["made_by"][0]["versions"] == whole["versions"]


@pytest.mark.parametrize("size", [32, 1000])
def test_any_batch_size(trained, whole, tmp_path, size):
    same(judged(trained, tmp_path, f"batch_size={size}")[FID], whole)


def test_any_number_of_processes(trained, whole, tmp_path):
    processes = started(2, settings(trained, tmp_path))
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, 0]
    same(json.loads((tmp_path / "metrics.json").read_text())[FID], whole)


@pytest.fixture(scope="module")
def three(trained) -> dict:
    """The entry of three sets."""
    return judged(trained, trained.parent / "three", "sets=3")[FID]


@pytest.mark.parametrize("world_size", [1, 2])
def test_any_interruption(trained, three, tmp_path, world_size, capsys):
    """Killed while it draws the second of three sets, it goes on with what is there."""
    shards = tmp_path / "samples/48-95/shards"
    processes = started(world_size, settings(trained, tmp_path, "sets=3"))
    until = time.monotonic() + 100
    while not [*shards.glob("[0-9]*.npy")] and time.monotonic() < until:
        time.sleep(0.001)
    for process in processes:
        process.kill()
        process.join()
    left = len([*shards.glob("[0-9]*.npy")])
    assert 1 <= left <= 3
    assert not (tmp_path / "metrics.json").exists()
    entry = judged(trained, tmp_path, "sets=3")[FID]
    assert f"going on: {left} of 3 shards ({16 * left} of 48 images) were drawn before" in capsys.readouterr().out
    assert entry["all"] == three["all"]
    assert entry["samples"] == three["samples"]


def test_three_sets_give_the_minimum_the_mean_and_all(trained, whole, three, tmp_path, capsys):
    listed = judged(trained, tmp_path, "seeds=[0-47,48-95,96-143]")[FID]
    out = capsys.readouterr().out
    assert listed["all"] == three["all"]
    values = [found[FID] for found in three["all"]]
    assert values[0] == whole[FID]
    assert len(set(values)) == 3
    assert three["minimum"][FID] == min(values)
    assert three["mean"][FID] == pytest.approx(np.mean(values))
    assert len({subject["sha256"] for subject in three["samples"]}) == 3
    assert [made["seeds"] for made in three["made"]] == [["0-47"], ["48-95"], ["96-143"]]
    for row in ("seeds 0-47", "seeds 48-95", "seeds 96-143", "minimum", "mean"):
        assert f"│ {row} " in out
    assert out.splitlines()[-1] == str(tmp_path)


@pytest.mark.parametrize("setting", ["ema=false", "label=3", "guidance=2.5", "sampler.steps=4", "sampler=ddim"])
def test_weights_labels_and_samplers_are_chosen_as_for_task_sample(trained, whole, tmp_path, setting):
    assert judged(trained, tmp_path, setting)[FID][FID] != whole[FID]


def test_an_export_is_as_good(trained, whole, tmp_path):
    """Outside of the run's folder the command line says which data it is of."""
    run(("task=convert", f"file={trained}", f"out={tmp_path / 'net.safetensors'}"))
    export = f"ckpt={tmp_path / 'net.safetensors'}"
    same(judged(trained, tmp_path / "out", export, *DATA)[FID], whole)


def test_another_metric_finds_the_images_there_and_goes_beside(trained, capsys, monkeypatch):
    clean = {**drawer.versions(), "git": "0" * 40}
    monkeypatch.setattr(drawer, "versions", lambda: clean)
    run(settings(trained, None))
    home = trained / "metrics/000000000064"
    file = home / "samples/0-47/samples.npy"
    before = file.stat().st_mtime_ns
    run(settings(trained, None, "metric=kid", "metric.subset_size=20"))
    out = capsys.readouterr().out
    assert "all 48 images were drawn with these settings already" in out
    assert out.splitlines()[-1] == str(home)
    assert file.stat().st_mtime_ns == before
    assert {*json.loads((home / "metrics.json").read_text())} == {FID, "kernel_distance_module"}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("ckpt=null",), r"task=evaluate judges either samples=.*, or ckpt=.*: neither is given"),
        (("samples=.",), "both are given"),
        (("sets=2", "seeds=0-9"), r"sets=2 seeds=0-9: either how many sets"),
        (("seeds=[0-9,20-25]",), "sets of 6, 10 images; they are of one size"),
        (("seeds=[0-9,5-14]",), "a seed comes twice"),
        (("seeds=[1,2,3]",), "a set of one image; a list has sets as its items"),
        (("seeds=0-x",), "neither a number nor a range"),
        (("n=0",), "at least one image"),
        (("label=12",), r"classes are 0 \.\. 9"),
        (("metric.extractor.module=no.Net",), "cannot be imported"),
        (("split=validation",), "has no validation images"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_drawn(trained, tmp_path, more, reason):
    with pytest.raises(UserError, match=reason) as error:
        run(settings(trained, tmp_path, *more))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "samples").exists()


def test_a_metric_is_given_what_it_judges(trained, tmp_path):
    base = ("task=evaluate", f"paths.data_dir={trained.parent / 'data'}")
    with pytest.raises(UserError, match=r"metric=digits judges samples=\.\.\., and ckpt=.* was given"):
        run((*base, "metric=digits", "samples=null", f"ckpt={trained}"))
    with pytest.raises(UserError, match=r"seeds=0-9: metric=bpd of ckpt=\.\.\. draws no images"):
        run((*base, "metric=bpd", f"ckpt={trained}", "seeds=0-9"))
    with pytest.raises(UserError, match=r"sets=3: metric=frechet_distance_module of samples=\.\.\. draws no images"):
        run((*base, "metric=fid", *OWN, f"samples={trained}", "sets=3"))


def test_seed_sets():
    def ranges(seeds, n=5, sets=1):
        return [written(part) for part in seed_sets(seeds, n, sets)]

    assert ranges(None) == [["0-4"]]
    assert ranges(None, sets=3) == [["0-4"], ["5-9"], ["10-14"]]
    assert ranges("3-9") == [["3-9"]]
    assert ranges(ListConfig(["0-4", ["7", "9-12"]])) == [["0-4"], ["7", "9-12"]]

"""task=analyze: what it takes from a run, writes and refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorafusion import checkpoint
from lorafusion.errors import UserError
from lorafusion.tasks import initial, run_folder
from lorafusion.tasks.analyze import analyze
from lorafusion.tasks.analyze_images import captions
from lorafusion.tasks.sample import sample
from tests.tasks.runs import composed, finish, tiny

TIMES = (
    "process=ddpm",
    "process.num_steps=40",
    "conditioning/attn=[time_lora]",
    "seed=5",
    "backbone.attn_resolutions=[2]",
)


def settings_of(folder):
    return [o for o in tiny(folder) if not o.startswith("conditioning.attn.uc_lora")]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Two steps at a learning rate of 0: its checkpoint is its init."""
    folder = tmp_path_factory.mktemp("analyze") / "run"
    more = ("images=32", "denoiser.optimizer.lr=0", "callbacks.checkpoint.every_images=32")
    assert finish((*settings_of(folder), *TIMES, *more)) == 0
    return folder


def run(ckpt, *overrides: str, name="omega_similarity"):
    analyze(composed("task=analyze", f"analysis={name}", f"ckpt={ckpt}", "device=cpu", *overrides))


def test_the_init_is_rebuilt_to_the_bit(untrained):
    path = run_folder.find_checkpoint(str(untrained))
    before = torch.random.get_rng_state()
    denoiser, unknown = initial.rebuilt(path, run_folder.saved_config(path))
    assert unknown == ""
    assert torch.equal(torch.random.get_rng_state(), before)
    saved = checkpoint.load(path)["state_dict"]
    assert {*saved} == {*denoiser.state_dict()}
    assert all(torch.equal(value, saved[name]) for name, value in denoiser.state_dict().items())


def test_files_of_omega_similarity(untrained, capsys):
    run(untrained, "analysis.points=10", "ema=false")
    out = untrained / "analysis" / "omega_similarity" / "000000000032"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(out)
    assert "raw weights (32 images seen)" in lines[0]
    names = ["analysis.json", "by_distance.csv", "by_distance.png", "levels.png", "omega_similarity.npz"]
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == names
    with np.load(out / "omega_similarity.npz") as file:
        arrays = dict(file)
    assert np.array_equal(arrays["levels_init"], arrays["levels_trained"])  # nothing was learned
    assert arrays["levels_init"].shape == (4, 10, 10)
    with (out / "by_distance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["layer", "distance", "init", "trained"]
    assert float(rows[1]["init"]) == pytest.approx(np.diagonal(arrays["levels_init"][0], 1).mean(), abs=1e-6)
    record = json.loads((out / "analysis.json").read_text())
    path = untrained / "checkpoints" / "000000000032.ckpt"
    assert record["checkpoints"][0]["file"] == path.name
    assert len(record["checkpoints"][0]["sha256"]) == 64
    assert record["settings"] == {"points": 10, "label": None}
    assert "torch" in record["versions"]
    for picture in out.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 200
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    run(untrained, "analysis.points=10", "ema=false")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before  # to the byte


def test_an_init_that_is_not_known_is_said(untrained, tmp_path, capsys):
    path = run_folder.find_checkpoint(str(untrained))
    cfg = run_folder.saved_config(path)
    cfg.init_from = str(tmp_path / "gone.ckpt")
    found, unknown = initial.rebuilt(path, cfg)
    assert found is None
    assert "how this run's training began is not known any more: init_from: " in unknown
    cfg.init_from = str(path)  # itself: its base weights, with the rest as the seed has it
    found, unknown = initial.rebuilt(path, cfg)
    assert (found is not None, unknown) == (True, "")
    assert initial.rebuilt(tmp_path / "net.safetensors", cfg)[0] is None


def test_mistakes(untrained, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        run(tmp_path)
    with pytest.raises(UserError, match=r"gone\.ckpt is missing|gone\.ckpt does not exist|stands in no run's folder"):
        run(tmp_path / "gone.ckpt")
    with pytest.raises(UserError, match="looks at one run at a time; 2 were given"):
        run(f"[{untrained},{untrained}]")
    with pytest.raises(UserError, match=r"ckpt=\[\]"):
        run("[]")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Of 10 classes, at a process that is continuous."""
    folder = tmp_path_factory.mktemp("analyze") / "cond"
    more = ("process=edm", "sampler=heun", "sampler.steps=3", "conditioning/attn=[class_lora]")
    classes = ("backbone.num_classes=10", "backbone.class_embedding=false", "backbone.attn_resolutions=[2]")
    assert finish((*settings_of(folder), *more, *classes, "images=64")) == 0
    return folder


def test_the_ends_of_an_interpolation_are_what_task_sample_draws(conditional, tmp_path, capsys):
    seeds, run_of_it = "seeds=[3,11-13]", f"ckpt={conditional}"
    run(conditional, "analysis.pairs=[[2,7]]", "analysis.steps=3", seeds, name="class_interpolation")
    out = conditional / "analysis" / "class_interpolation" / "000000000064"
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(out)
    assert "no classifier was asked" in said[-2]
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == [
        "analysis.json",
        "class_interpolation.npz",
        "images.png",
    ]
    with np.load(out / "class_interpolation.npz") as file:
        found = dict(file)
    for label, place in ((2, 0), (7, 2)):
        samples = tmp_path / str(label)
        sample(composed("task=sample", run_of_it, f"out={samples}", "device=cpu", seeds, f"label={label}"))
        with np.load(samples / "samples.npz") as file:
            assert np.array_equal(found["images"][0, 0, :, place], file["images"])
    assert json.loads((out / "analysis.json").read_text())["seeds"] == ["3", "11-13"]


def test_two_runs_in_one_picture_with_a_classifier(conditional, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(conditional, other)
    judge = ("metric/extractor=module", "metric.extractor.module=tests.tasks.test_analyze.Judge")
    run(
        f"[{conditional},{other}]",
        *("analysis.classes=[1,4]", "analysis.steps=2", "seeds=0-2", "shown=2", f"out={tmp_path}/out"),
        *(*judge, "metric.extractor.num_classes=10"),
        name="class_scaling",
    )
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} > {"images.png", "confidence.png", "confidence.csv"}
    with np.load(out / "class_scaling.npz") as file:
        found = dict(file)
    assert found["runs"].tolist() == ["cond", "other"]
    assert np.array_equal(found["images"][0], found["images"][1])
    with (out / "confidence.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 * 2
    assert float(rows[0]["probability"]) == pytest.approx(found["probabilities"][0, 0, 0, 0, 1])
    assert json.loads((out / "analysis.json").read_text())["extractor"]["name"] == "module"
    assert "class 4, other" in capsys.readouterr().out

    mine = (tmp_path / "outside.png", out / "notes.txt", out / "mine.png")
    for path in mine:
        path.write_text("mine")
    record = json.loads((out / "analysis.json").read_text())
    assert {*record["files"]} == {"images.png", "confidence.png", "confidence.csv", "class_scaling.npz"}
    record["files"] += ["../outside.png", "notes.txt"]
    (out / "analysis.json").write_text(json.dumps(record))
    run(conditional, "analysis.steps=2", "seeds=0", f"out={out}", name="class_scaling")  # without a classifier
    assert sorted(p.name for p in out.iterdir() if p.suffix in (".png", ".csv")) == ["images.png", "mine.png"]
    assert all(path.is_file() for path in mine)


class Judge(torch.nn.Module):
    """Ten classes, of the first ten pixels."""

    def forward(self, x):
        return x.flatten(1), x.flatten(1)[:, :10]


def test_captions_tell_runs_apart():
    a, b, c = (Path(f"/x/{name}/checkpoints/1.ckpt") for name in ("d1/run", "d2/run", "d2/other"))
    assert captions([a, c]) == ["run", "other"]
    assert captions([a, b]) == ["d1/run", "d2/run"]
    assert captions([a, a]) == ["run, 1, 1", "run, 1, 2"]
    assert captions([Path("/x/net.safetensors"), a]) == ["net", "run"]


def test_mistakes_about_classes(untrained, conditional):
    for name in ("class_interpolation", "class_scaling"):
        with pytest.raises(UserError, match="run is unconditional: this analysis needs runs that are told a class"):
            run(untrained, name=name)
    for setting in ("shown=0", "micro_batch=0"):
        with pytest.raises(UserError, match=setting):
            run(conditional, setting, name="class_scaling")
    with pytest.raises(UserError, match="seeds="):
        run(conditional, "seeds=9-2", name="class_scaling")


def test_files_of_conditioning_response(untrained, conditional, capsys):
    run(conditional, "analysis.points=3", name="conditioning_response")
    out = conditional / "analysis" / "conditioning_response" / "000000000064"
    assert {p.name for p in out.iterdir()} >= {"classes.png", "response.csv", "conditioning_response.npz"}
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert "enc.2.attn.qkv" in json.loads((out / "analysis.json").read_text())["layers"]
    run(untrained, "analysis.points=3", name="conditioning_response")
    assert "no movement with the noise level, of no layer" in capsys.readouterr().out

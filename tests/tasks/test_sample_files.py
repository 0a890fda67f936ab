"""What task=sample leaves: formats that agree, a record that says what made them, and no sample of another run."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.denoisers.cost import cost
from lorafusion.denoisers.guidance import Guidance
from lorafusion.errors import UserError
from lorafusion.processes.edm import EDM
from lorafusion.processes.iddpm import IDDPM
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.ddim import DDIM
from lorafusion.samplers.heun import Heun
from lorafusion.tasks import drawer, run_folder, sample_files
from lorafusion.tasks.shards import Shards
from lorafusion.versions import versions
from tests.data.test_edm_zip import read_by_the_rules
from tests.tasks.runs import finish, run, tiny

FILES = ["grid.png", "images", "labels.npy", "samples.json", "samples.npy", "samples.npz", "samples.zip"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files") / "run"
    settings = ("images=64", "process=edm", "sampler=heun", "sampler.steps=4", "backbone.num_classes=10", "seed=3")
    assert finish(tiny(folder, *settings)) == 0
    return folder


def draw(trained, out, *settings):
    run(("task=sample", f"ckpt={trained}", f"out={out}", "device=cpu", "micro_batch=4", "batch_size=4", *settings))
    return json.loads((out / "samples.json").read_text())


def visible(out):
    return sorted(file.name for file in out.iterdir() if not file.name.startswith("."))


def test_all_formats_hold_the_same_images(trained, tmp_path):
    record = draw(trained, tmp_path, "seeds=[0-8,20]", "formats=[png,npz,npy,zip]")
    assert visible(tmp_path) == FILES
    images = np.load(tmp_path / "samples.npy", mmap_mode="r")
    assert (images.shape, images.dtype) == ((10, 8, 8, 1), np.uint8)
    with np.load(tmp_path / "samples.npz") as file:
        assert np.array_equal(file["images"], images)
        assert file["seeds"].tolist() == [*range(9), 20]
        labels = file["labels"]
    assert np.array_equal(np.load(tmp_path / "labels.npy"), labels)
    pixels, listed = read_by_the_rules(tmp_path / "samples.zip")
    assert np.array_equal(pixels, images)
    assert np.array_equal(listed, labels)
    read = [np.asarray(Image.open(tmp_path / "images" / f"{seed:06d}.png")) for seed in (*range(9), 20)]
    assert np.array_equal(np.stack(read), images[..., 0])
    assert Folder(tmp_path / "images").count("train") == 10
    decode = Decoder(8, 1)
    assert all(
        np.array_equal(decode(one)[0], images[k].transpose(2, 0, 1))
        for k, one in enumerate(Folder(tmp_path / "images").records("train"))
    )
    assert record["sha256"] == hashlib.sha256(images.tobytes()).hexdigest()
    assert record["labels"]["sha256"] == hashlib.sha256(labels.tobytes()).hexdigest()


def test_the_record_says_what_made_them(trained, tmp_path):
    record = draw(trained, tmp_path, "n=3", "label=2", "ema=false", "formats=[npz]")
    path = run_folder.find_checkpoint(str(trained))
    assert record["checkpoint"] == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "images_seen": 64,
        "ema": False,
    }
    assert (record["n"], record["seeds"], record["noise_seed"]) == (3, ["0-2"], 3)
    assert (record["steps"], record["evaluations"]) == (4, 7)
    assert record["sampler"]["_target_"] == "lorafusion.samplers.heun.Heun"
    assert record["sampler"]["churn_max"] == "inf"  # JSON has no infinity
    assert (record["guidance"], record["labels"]["asked"], record["device"]) == (None, 2, "cpu")
    assert record["formats"] == ["npz"]
    assert record["made_by"] == [{"versions": versions(), "device": "cpu", "processes": 1}]


@pytest.mark.parametrize(
    ("sampler", "guidance", "steps", "evaluations"),
    [
        (Heun(18), None, 18, 35),
        (Heun(18, churn=40), None, 18, 35),
        (Heun(18), Guidance(2.0), 18, 70),
        (DDIM(5), None, 5, 5),
        (Ancestral(7, "learned"), Guidance(3.0), 7, 14),
    ],
)
@pytest.mark.parametrize("process", [EDM(), IDDPM(1000)], ids=["edm", "iddpm"])
def test_evaluations_are_counted(process, sampler, guidance, steps, evaluations):
    assert cost(sampler, process, guidance, torch.device("cpu")) == (steps, evaluations)


def test_evaluations_of_guidance_in_an_interval_are_counted():
    """Twice at a level inside, of which all but the first are met twice."""
    i = np.arange(18)
    levels = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    inside = int((levels > 0.5).sum())
    assert cost(Heun(18), EDM(), Guidance(2.0, 0.5), torch.device("cpu")) == (18, 35 + 2 * inside - 1)


def test_finished_samples_are_replaced_whole(trained, tmp_path, capsys):
    draw(trained, tmp_path, "n=6", "formats=[png,npz,npy,zip]")
    capsys.readouterr()
    record = draw(trained, tmp_path, "n=2", "sampler=heun", "sampler.steps=3", "formats=[png,npz]")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(
        "they were drawn with sampler.steps=4 (now 3), seeds=['0-5'] (now ['0-1']), "
        f"labels.sha256={printed[0].partition('labels.sha256=')[2]}"
    )
    assert printed[1].startswith("2 images in 3 steps, 5 evaluations each: PNG files, samples.npz, their grid from ")
    assert visible(tmp_path) == ["grid.png", "images", "samples.json", "samples.npz"]
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == ["000000.png", "000001.png"]
    assert record["steps"] == 3


def test_a_kill_while_files_are_written_loses_nothing(trained, tmp_path, monkeypatch):
    """The shards stay until the record is there."""
    whole = draw(trained, tmp_path / "whole", "n=6")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sample_files, "grid", killed)
        with pytest.raises(KeyboardInterrupt):
            draw(trained, tmp_path / "out", "n=6")
    assert not (tmp_path / "out" / "samples.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr("lorafusion.denoisers.base.Denoiser.sample", killed)  # nothing is drawn again
        again = draw(trained, tmp_path / "out", "n=6")
    assert again["sha256"] == whole["sha256"]
    assert visible(tmp_path / "out") == visible(tmp_path / "whole")


def test_what_is_there_is_not_drawn_again_unless_the_code_may_have_changed(trained, tmp_path, monkeypatch, capsys):
    stamp = (tmp_path / "samples.json").stat
    for git, drawn in (("abc", True), ("abc", False), ("abd", True), ("abd+", True), ("abd+", True)):
        monkeypatch.setattr(drawer, "versions", lambda git=git: {"git": git})
        before = stamp().st_mtime_ns if (tmp_path / "samples.json").exists() else 0
        draw(trained, tmp_path, "n=2")
        assert (stamp().st_mtime_ns != before) is drawn
        assert ("all 2 images were drawn with these settings already" in capsys.readouterr().out) is not drawn
    monkeypatch.setattr(drawer, "versions", lambda: {"git": "abc"})
    draw(trained, tmp_path, "n=2")
    (tmp_path / "images" / "000001.png").unlink()
    draw(trained, tmp_path, "n=2")
    assert (tmp_path / "images" / "000001.png").is_file()


def test_images_of_somebody_else_are_not_mixed_with(trained, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000007.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds 1 files that no samples.json speaks of, such as 000007.png"):
        draw(trained, tmp_path, "n=2")
    assert [file.name for file in (tmp_path / "images").iterdir()] == ["000007.png"]
    draw(trained, tmp_path, "n=2", "formats=[npz]")
    assert (tmp_path / "images" / "000007.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("formats=[npz,jpg]", "there is no 'jpg'; choose from png, npz, npy, zip"),
        ("batch_size=0", "batch_size=0: at least 1"),
        ("micro_batch=0", "micro_batch=0: at least 1"),
        ("n=0", "n=0: at least one image"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(trained, tmp_path, setting, words):
    with pytest.raises(UserError, match=words):
        draw(trained, tmp_path / "out", *(["n=2"] if setting != "n=0" else []), setting)
    assert not (tmp_path / "out").exists()


def test_a_zip_file_has_a_power_of_two():
    sample_files.check_formats(["zip"], 16)
    with pytest.raises(UserError, match="power of two, these have 24 px"):
        sample_files.check_formats(["zip"], 24)


def test_unlabelled_colour_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    shards = Shards(tmp_path, 3, 3, (8, 8, 3))
    shards.claim({}, {}, first=True)
    shards.write(0, images)
    sample_files.write(shards, np.array([5, 6, 9]), None, ["png", "npz", "npy", "zip"], {"seeds": ["5-6", "9"]})
    assert not (tmp_path / "labels.npy").exists()
    with np.load(tmp_path / "samples.npz") as file:
        assert sorted(file) == ["images", "seeds"]
    pixels, listed = read_by_the_rules(tmp_path / "samples.zip")
    assert listed is None
    assert np.array_equal(pixels, images)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images" / "000009.png")), images[2])

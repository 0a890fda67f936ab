"""task=sample: files, seeds, labels, and a model rebuilt from the run's own config."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from lorafusion import checkpoint
from lorafusion.errors import UserError
from lorafusion.pictures import grid, to_uint8
from lorafusion.tasks import run_folder
from lorafusion.tasks.seeds import choose_labels, parse_seeds, written
from tests.tasks.runs import finish, run, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "run"
    settings = ("images=64", "process=edm", "sampler=heun", "sampler.steps=4", "backbone.num_classes=10", "seed=3")
    assert finish(tiny(folder, *settings)) == 0
    return folder


def drawn(trained, out, *settings):
    run(("task=sample", f"ckpt={trained}", f"out={out}", "device=cpu", *settings))
    with np.load(out / "samples.npz") as file:
        return dict(file)


def test_files_agree_with_each_other_and_with_the_averaged_weights(trained, tmp_path, capsys):
    found = drawn(trained, tmp_path / "a", "seeds=[3-5,9]", "label=[1,2,3,4]")
    assert found["seeds"].tolist() == [3, 4, 5, 9]
    assert found["labels"].tolist() == [1, 2, 3, 4]
    assert found["images"].shape == (4, 8, 8, 1)
    assert found["images"].dtype == np.uint8
    for seed, image in zip((3, 4, 5, 9), found["images"], strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "images" / f"{seed:06d}.png")), image[..., 0])
    assert Image.open(tmp_path / "a" / "grid.png").size == (8 * (2 * 9 - 1),) * 2
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "a")

    path = run_folder.find_checkpoint(str(trained))
    cfg = run_folder.saved_config(path)
    denoiser = instantiate(cfg.denoiser, _convert_="all").eval()
    content = checkpoint.load(path)
    for name, parameter in denoiser.named_parameters():
        parameter.data.copy_(content["ema"][name])
    label = denoiser.one_hot(torch.tensor([1, 2, 3, 4]))
    images = denoiser.sample(instantiate(cfg.sampler), torch.tensor([3, 4, 5, 9]), label)
    assert np.array_equal(to_uint8(images), found["images"])


def test_same_seeds_same_images_raw_weights_and_other_samplers_differ(trained, tmp_path):
    label = "label=balanced"
    first = drawn(trained, tmp_path / "a", "n=4", label)["images"]
    assert np.array_equal(drawn(trained, tmp_path / "b", "seeds=2-3", label)["images"], first[2:])
    assert not np.array_equal(drawn(trained, tmp_path / "c", "n=4", label, "ema=false")["images"], first)
    assert not np.array_equal(drawn(trained, tmp_path / "d", "n=4", label, "sampler=ddim")["images"], first)


def test_seeds():
    assert parse_seeds(None, 3).tolist() == [0, 1, 2]
    assert parse_seeds("0-2", 1).tolist() == [0, 1, 2]
    assert parse_seeds(5, 1).tolist() == [5]
    assert parse_seeds(OmegaConf.create([1, "4-5"]), 1).tolist() == [1, 4, 5]
    for bad in ("a", "1-", "3-1", "-4", "1;2"):
        with pytest.raises(UserError, match="seeds="):
            parse_seeds(bad, 1)
    with pytest.raises(UserError, match="n=0"):
        parse_seeds(None, 0)


@pytest.mark.parametrize("seeds", [[0], [3, 4, 5], [5, 4, 3], [7, 8, 2, 2, 3, 4, 0], [*range(70000), 9]])
def test_seeds_are_written_as_they_are_read(seeds):
    said = written(torch.tensor(seeds))
    assert parse_seeds(said, 1).tolist() == seeds
    assert len(said) <= 5


def test_labels():
    seeds = torch.arange(6)
    assert choose_labels(None, seeds, None) is None
    assert choose_labels(2, seeds, 3).tolist() == [2] * 6
    assert choose_labels("balanced", seeds, 4).tolist() == [0, 1, 2, 3, 0, 1]
    drawn = choose_labels(None, torch.arange(1000), 10)
    assert torch.equal(choose_labels(None, torch.arange(500, 510), 10), drawn[500:510])
    assert torch.bincount(drawn).min() > 60
    for bad in (7, [1, 2], "cat", [0, 1, 2, 3, 4, 9]):
        with pytest.raises(UserError, match="label="):
            choose_labels(bad, seeds, 4)
    with pytest.raises(UserError, match="unconditional"):
        choose_labels(1, seeds, None)


def test_a_folder_that_is_no_run_and_a_config_that_does_not_fit_are_named(trained, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        run_folder.find_checkpoint(str(tmp_path))
    path = run_folder.find_checkpoint(str(trained))
    cfg = run_folder.saved_config(path)
    cfg.backbone.widths = cfg.denoiser.net.widths = [4, 4, 4]
    with pytest.raises(UserError, match="does not fit"):
        run_folder.restore(path, cfg)
    lost = tmp_path / "checkpoints" / path.name
    lost.parent.mkdir()
    lost.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"config\.yaml is missing"):
        run_folder.saved_config(lost)


def test_grid_places_images_row_by_row():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    picture = grid(images, columns=3)
    assert picture.shape == (5, 8, 1)
    assert [picture[0, 0, 0], picture[0, 3, 0], picture[0, 6, 0], picture[3, 0, 0], picture[3, 3, 0]] == [0, 1, 2, 3, 4]
    assert picture[2, 0, 0] == picture[3, 6, 0] == 255


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.exec",
        "torch.hub.load",
        "torch.optim.os.system",
        "lorafusion.checkpoint.save",
        "lorafusion.checkpoint.torch.load",
        "lorafusion.denoisers.base.torch.hub.load",
        "lorafusion.denoisers.base.Draws",
        "lorafusion.files.write_text",
        "lorafusion.nowhere.Class",
    ],
)
def test_a_config_that_somebody_handed_over_runs_nothing(trained, tmp_path, target, monkeypatch):
    path = run_folder.find_checkpoint(str(trained))
    copy = tmp_path / "checkpoints" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    cfg = OmegaConf.load(trained / "config.yaml")
    cfg.denoiser.process = {"_target_": target}
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    with pytest.raises(UserError, match="is not run"):
        run_folder.saved_config(copy)
    cfg.denoiser.process = {"x": "${oc.create:{_target_: " + target + "}}"}  # made where it is read
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    with pytest.raises(UserError, match="holds an interpolation"):
        run_folder.saved_config(copy)
    cfg.denoiser.process = {"_target_": target}
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    monkeypatch.setenv(run_folder.TRUST, f"other,{target.partition('.')[0]}")
    assert run_folder.saved_config(copy).denoiser.process._target_ == target

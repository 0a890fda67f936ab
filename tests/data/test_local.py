"""One path, any form: what lies there decides how it is read; class numbers are those of the tools in use."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lorafusion.data.arrays import Arrays
from lorafusion.data.folder import Folder
from lorafusion.data.hub import Hub
from lorafusion.data.local import Local
from lorafusion.errors import UserError
from tests.data.images import encoded, noise, write_folder, write_zip

CONF = Path(__file__).parents[2] / "conf"
FILES = {f"n{k:08d}/{k}_{j}.JPEG": encoded(noise(8, 8, seed=k), "JPEG") for k in (7, 1, 40) for j in (2, 10)}


def parquet(path: Path, name: str, n: int, labels: int = 1000) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": encoded(noise(8, 8, seed=k)), "path": None} for k in range(n)]
    pq.write_table(pa.table({"image": rows, "label": [k % labels for k in range(n)]}), path / name, row_group_size=40)


def module(name: str, path: Path | None):
    config = OmegaConf.create(
        {"seed": 0, "paths": {"data_dir": "unused"}, "data": OmegaConf.load(CONF / f"data/{name}.yaml")}
    )
    config.data.path = None if path is None else str(path)
    return instantiate(config.data)


@pytest.mark.parametrize("name", ["imagenet64", "ffhq64", "folder", "cifar10", "mnist"])
def test_every_data_set_is_read_from_whatever_lies_at_its_path(tmp_path, name):
    parquet(tmp_path / "hub" / "data", "train-00000-of-00001.parquet", 3)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    found = {
        Folder: [write_folder(tmp_path / "tree", FILES), write_zip(tmp_path / "a.zip", FILES)],
        Hub: [tmp_path / "hub", tmp_path / "hub" / "data"],
        Arrays: [tmp_path / "a.npz"],
    }
    for kind, paths in found.items():
        for path in paths:
            source = module(name, path).source
            assert isinstance(source.source, kind)
            assert source.count("train") == len(list(source.records("train"))) > 0


@pytest.mark.parametrize(
    ("name", "where"), [("imagenet64", "image-net.org"), ("ffhq64", "github.com/NVlabs/ffhq-dataset")]
)
def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, name, where):
    with pytest.raises(UserError, match=rf"^data={name} needs data.path=[^\n]*{where}$"):
        module(name, None).source.count("train")
    with pytest.raises(UserError, match=rf"^data.path=\S+none: no such folder or file; data={name} [^\n]*{where}$"):
        module(name, tmp_path / "none").source.count("train")


def test_without_a_path_the_hub_is_asked():
    source = Local(None, repo="owner/name", revision="abc").source
    assert isinstance(source, Hub)
    assert (source.repo, source.path, source.revision) == ("owner/name", None, "abc")


def test_validation_files_are_preferred_to_unlabelled_test_files(tmp_path):
    parquet(tmp_path, "train.parquet", 3)
    assert Local(tmp_path).splits() == ("train",)
    parquet(tmp_path, "test-00000-of-00001.parquet", 4)
    assert Local(tmp_path).count("test") == 4
    parquet(tmp_path, "validation-00000-of-00001.parquet", 5)
    assert Local(tmp_path).splits() == ("train", "test")
    assert Local(tmp_path).count("test") == 5


@pytest.mark.parametrize("start", [0, 1, 39, 40, 99, 100, 101, 150, 160])
def test_every_source_goes_on_from_any_record(tmp_path, start):
    parquet(tmp_path / "hub", "train-00000-of-00002.parquet", 100)
    parquet(tmp_path / "hub", "train-00001-of-00002.parquet", 60)
    np.savez_compressed(tmp_path / "a.npz", images=np.stack([noise(4, 4, seed=k) for k in range(160)]))
    write_zip(tmp_path / "a.zip", {f"{k:03d}.png": bytes([k]) for k in range(160)})
    for name in ("hub", "a.npz", "a.zip"):
        whole, rest = (list(Local(tmp_path / name).records("train", first)) for first in (0, start))
        assert [r.name for r in rest] == [r.name for r in whole[start:]]
        assert [r.label for r in rest] == [r.label for r in whole[start:]]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(rest, whole[start:], strict=True))


def test_classes_are_numbered_as_torchvision_numbers_them(tmp_path):
    """By the sorted names of the top folders, whatever lies in them; so does NVlabs' tool, and ImageNet's 0 to 999."""
    pytest.importorskip("torchvision")
    names = ["n02", "n01", "N03", "n1", "n01x"]
    files = {f"{name}/{deep}{k}.png": encoded(noise(8, 8)) for name in names for deep in ("", "b/") for k in range(2)}
    root = write_folder(tmp_path / "tree", files)
    code = (
        "import sys, lorafusion\nfrom torchvision.datasets import ImageFolder\n"
        "for path, label in ImageFolder(sys.argv[1]).samples: print(path, label)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, cwd=CONF.parent)
    theirs = dict(line.rsplit(" ", 1) for line in run.stdout.splitlines())
    ours = {record.name: str(record.label) for record in Folder(root).records("train")}
    assert ours == theirs
    assert Folder(root).found["train"].classes == tuple(sorted(names))
    inside = {f"ILSVRC/train/{name}": data for name, data in files.items()}  # in a folder that all share
    assert [r.label for r in Folder(write_zip(tmp_path / "a.zip", inside)).records("train")] == [
        *map(int, ours.values())
    ]

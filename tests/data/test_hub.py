"""Datasets in the hub's layout: from local parquet files without a network, from the hub through `datasets`."""

import os
import socket
import subprocess
import sys
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest

from lorafusion.data.cache import cached
from lorafusion.data.decode import Decoder
from lorafusion.data.hub import Hub
from lorafusion.errors import UserError
from tests.data.images import encoded, noise

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

REAL = os.environ.get("LORAFUSION_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="LORAFUSION_TEST_DATA is not set")


def table(ks: range, image: str = "image", label: str | None = "label", plain: bool = False) -> pa.Table:
    """Image k is noise of seed k, its label k mod 10; plain: bytes alone, not in a struct with a path."""
    files = [encoded(noise(8, 8, 1, k)) for k in ks]
    columns = {
        image: files if plain else [{"bytes": data, "path": f"{k}.png"} for k, data in zip(ks, files, strict=True)]
    }
    if label is not None:
        columns[label] = [k % 10 for k in ks]
    return pa.table(columns)


@pytest.fixture
def folder(tmp_path) -> Path:
    """300 training images in two files, of several row groups each, and 20 for testing."""
    pq.write_table(table(range(0, 270)), tmp_path / "train-00000-of-00002.parquet", row_group_size=50)
    pq.write_table(table(range(270, 300)), tmp_path / "train-00001-of-00002.parquet", row_group_size=50)
    pq.write_table(table(range(300, 320)), tmp_path / "test-00000-of-00001.parquet")
    return tmp_path


def refused(source: Hub, message: str) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        source.count("train"), list(source.records("train"))


def check(source: Hub, split: str, ks: range) -> None:
    records = list(source.records(split))
    assert source.count(split) == len(records) == len(ks)
    assert [record.image for record in records] == [encoded(noise(8, 8, 1, k)) for k in ks]
    assert [record.label for record in records] == [k % 10 for k in ks]


def test_local_files_in_order_without_a_network(folder, monkeypatch):
    def no_network(*args, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_network)
    source = Hub("owner/name", folder)
    check(source, "train", range(300))
    check(source, "test", range(300, 320))
    names = [record.name for record in source.records("train")]
    assert names[269:271] == [
        f"{folder}/train-00000-of-00002.parquet: row 269",
        f"{folder}/train-00001-of-00002.parquet: row 0",
    ]


@pytest.mark.parametrize(
    "columns", [{"image": "img"}, {"label": "labels"}, {"plain": True}, {"image": "img", "label": "fine_label"}]
)
def test_columns_are_found_by_the_names_in_use(tmp_path, columns):
    pq.write_table(table(range(5), **columns), tmp_path / "train.parquet")
    check(Hub("owner/name", tmp_path), "train", range(5))


def test_columns_can_be_named_and_labels_can_be_absent(tmp_path):
    pq.write_table(table(range(5), image="picture", label="kind"), tmp_path / "train.parquet")
    check(Hub("owner/name", tmp_path, image="picture", label="kind"), "train", range(5))
    records = list(Hub("owner/name", tmp_path, image="picture").records("train"))
    assert [record.label for record in records] == [-1] * 5
    refused(Hub("owner/name", tmp_path), "train.parquet: no column image or img; it has picture, kind")
    refused(Hub("owner/name", tmp_path, image="picture", label="class"), "no column class; it has picture, kind")


def test_the_fingerprint_changes_with_a_file(folder):
    before = Hub("owner/name", folder).fingerprint("train")
    assert Hub("owner/name", str(folder)).fingerprint("train") == before
    assert Hub("owner/name", folder, label="kind").fingerprint("train") != before
    pq.write_table(table(range(1, 31)), folder / "train-00001-of-00002.parquet")
    assert Hub("owner/name", folder).fingerprint("train") != before


def test_what_is_missing_is_named(folder, tmp_path):
    refused(Hub("owner/name", folder / "none"), "data.path=.*none: no such folder")
    (folder / "empty").mkdir()
    refused(Hub("owner/name", folder / "empty"), "empty: no train-.*.parquet in it, as owner/name on the hub has")
    (folder / "train-00000-of-00002.parquet").unlink()
    refused(Hub("owner/name", folder), f"{folder}: train-00000-of-00002.parquet is missing")


def test_a_file_that_was_cut_short_is_named(folder):
    file = folder / "train-00001-of-00002.parquet"
    whole = file.read_bytes()
    for keep in (0, 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:keep])
        refused(Hub("owner/name", folder), f"{file}: not a readable parquet file")


def test_damaged_pages_are_named(folder):
    """The footer is whole, so the file opens and counts; the pages before it are not."""
    file = folder / "train-00001-of-00002.parquet"
    data = bytearray(file.read_bytes())
    data[4:200] = bytes(196)
    file.write_bytes(data)
    refused(Hub("owner/name", folder), f"{file}: ")


def test_rows_without_an_image_file_are_named(tmp_path):
    rows = [{"bytes": encoded(noise(8, 8)), "path": None}, {"bytes": None, "path": "/elsewhere/1.png"}]
    pq.write_table(pa.table({"image": rows, "label": [1, 2]}), tmp_path / "train.parquet")
    refused(Hub("owner/name", tmp_path), "train.parquet: row 1: no image file in it")
    pq.write_table(pa.table({"image": [1, 2], "label": [1, 2]}), tmp_path / "train.parquet")
    refused(Hub("owner/name", tmp_path), "train.parquet: row 0: no image file in it, only 1")


def test_from_the_hub(folder, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(repo, split, revision):
        asked.append((repo, split, revision))
        files = {split: [str(file) for file in sorted(folder.glob(f"{split}-*"))]}
        local = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        return real_load("parquet", data_files=files, split=split, features=local, cache_dir=str(tmp_path / "hf"))

    real_load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = Hub("owner/name", revision="abc")
    source.fingerprint("train")
    assert asked == []  # nothing is asked of the network before it must be decoded
    check(source, "train", range(300))
    check(source, "test", range(300, 320))
    assert asked == [("owner/name", "train", "abc"), ("owner/name", "test", "abc")]


def test_without_a_network_it_says_what_to_do(tmp_path):
    pytest.importorskip("datasets")
    lines = [
        "from lorafusion.data.hub import Hub",
        "from lorafusion.errors import UserError",
        "try:\n    Hub('ylecun/mnist').count('train')\nexcept UserError as error:\n    print(error)",
    ]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": root}
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert run.stdout.startswith("ylecun/mnist could not be had from the Hugging Face hub (")
    assert run.stdout.count("\n") == 1
    assert "data.path=... reads a folder" in run.stdout


@pytest.mark.parametrize(("package", "path"), [("datasets", None), ("pyarrow.parquet", "here")])
def test_without_its_package_it_says_what_to_install(folder, monkeypatch, package, path):
    monkeypatch.setitem(sys.modules, package, None)
    refused(Hub("owner/name", path and folder), rf"{package.split('.')[0]}: pip install lorafusion\[hub\]$")


@real
def test_mnist_is_the_published_one(tmp_path):
    """The md5 sums of the original files: 28 px pass through the cache bit by bit."""
    got = cached(Hub("ylecun/mnist", f"{REAL}/mnist"), "test", Decoder(28, 1), tmp_path, "mnist")
    header = b"".join(n.to_bytes(4, "big") for n in (0x803, 10_000, 28, 28))
    assert md5(header + got.images.tobytes()).hexdigest() == "2646ac647ad5339dbf082846283269ea"
    header = b"".join(n.to_bytes(4, "big") for n in (0x801, 10_000))
    assert md5(header + got.labels.astype(np.uint8).tobytes()).hexdigest() == "27ae3e4e09519cfbb04c329615203637"


@real
def test_cifar10_is_what_datasets_reads(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = f"{REAL}/cifar10"
    source = Hub("uoft-cs/cifar10", path)
    assert source.count("train") == 50_000
    got = cached(source, "test", Decoder(32, 3), tmp_path, "cifar10")
    np.testing.assert_array_equal(np.bincount(got.labels), [1000] * 10)
    files = f"{path}/test-00000-of-00001.parquet"
    theirs = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    for k in range(0, 10_000, 97):
        row = theirs[k]
        np.testing.assert_array_equal(np.asarray(row["img"]).transpose(2, 0, 1), got.images[k])
        assert row["label"] == got.labels[k]

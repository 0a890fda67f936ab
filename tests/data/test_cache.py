"""The decoded array: made once, whole or not at all, and the same whoever made it."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lorafusion.data import cache, parallel
from lorafusion.data.decode import Decoder
from lorafusion.data.source import Record
from lorafusion.errors import UserError
from tests.data.images import Listed, encoded, grey, noise

DECODER = Decoder(8, 1)


def child(tmp_path: Path, body: str) -> subprocess.Popen:
    """Another python process that decodes into the same place."""
    lines = [
        "from pathlib import Path",
        "from lorafusion.data.cache import cached",
        "from lorafusion.data.decode import Decoder",
        "from lorafusion.errors import UserError",
        "from tests.data.images import grey",
        f"place = Path({str(tmp_path)!r})",
        body,
    ]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_what_is_stored(tmp_path):
    source = grey(30)
    got = cache.cached(source, "train", DECODER, tmp_path, "tiny/set")
    expected = np.stack([record.image for record in source.all])[:, None]
    np.testing.assert_array_equal(got.images, expected)
    np.testing.assert_array_equal(got.labels, np.arange(30) % 10)
    assert (got.images.dtype, got.labels.dtype) == (np.uint8, np.int64)
    assert isinstance(got.images, np.memmap)
    assert got.folder.name.startswith("tiny_set-train-8px-1ch-")
    assert sorted(file.name for file in got.folder.iterdir()) == ["images.npy", "labels.npy", "meta.json"]
    meta = json.loads((got.folder / "meta.json").read_text())
    assert meta["sha256"] == hashlib.sha256(expected.tobytes() + got.labels.tobytes()).hexdigest()
    assert (meta["count"], meta["resolution"], meta["filter"], meta["name"]) == (30, 8, "lanczos", "tiny/set")


def test_it_is_decoded_once(tmp_path):
    log = tmp_path / "log"
    for _ in range(3):
        cache.cached(grey(5, log=log), "train", DECODER, tmp_path, "tiny")
    assert log.read_text() == "read\n"


def test_more_images_than_a_window_keep_their_order(tmp_path):
    source = grey(4 * parallel.CHUNK * min(16, os.cpu_count() or 1) + 7, side=2)
    got = cache.cached(source, "train", Decoder(2, 1), tmp_path, "tiny")
    np.testing.assert_array_equal(got.images[:, 0], np.stack([record.image for record in source.all]))


def test_whatever_decides_the_pixels_has_its_own_folder(tmp_path):
    changed = grey(5)
    changed.mark = "other content"
    decoders = [DECODER, Decoder(4, 1), Decoder(8, 3), Decoder(8, 1, "box"), Decoder(8, 1, crop="center")]
    found = [cache.cached(grey(5), "train", decoder, tmp_path, "tiny").folder for decoder in decoders]
    found.append(cache.cached(changed, "train", DECODER, tmp_path, "tiny").folder)
    found.append(cache.cached(grey(5), "test", DECODER, tmp_path, "tiny").folder)
    assert len(set(found)) == 7


def test_it_travels_to_another_process_as_its_path(tmp_path):
    got = cache.cached(grey(300), "train", DECODER, tmp_path, "tiny")
    data = pickle.dumps(got)
    assert len(data) < 1000
    assert isinstance(pickle.loads(data).images, np.memmap)
    np.testing.assert_array_equal(pickle.loads(data).images, got.images)


def test_two_processes_at_once_make_one_cache(tmp_path):
    body = (
        "found = cached(grey(60, log=place / 'log', seconds=0.02), 'train', Decoder(8, 1), place, 'tiny')\n"
        "print(found.folder.name, found.images.sum(), found.labels.sum())"
    )
    children = [child(tmp_path, body) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in children]
    assert [process.returncode for process in children] == [0, 0]
    assert printed[0] == printed[1]
    assert (tmp_path / "log").read_text() == "read\n"
    images = np.stack([record.image for record in grey(60).all])
    assert printed[0].split()[1:] == [str(images.sum()), str((np.arange(60) % 10).sum())]


def test_kill_9_while_decoding_leaves_nothing_half_written(tmp_path):
    process = child(tmp_path, "cached(grey(1000, seconds=0.02), 'train', Decoder(8, 1), place, 'tiny')")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.partial/images.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [entry.suffix for entry in tmp_path.iterdir() if entry.is_dir()] == [".partial"]

    got = cache.cached(grey(1000), "train", DECODER, tmp_path, "tiny")  # the dead process's lock does not hold
    np.testing.assert_array_equal(got.images[:, 0], np.stack([record.image for record in grey(1000).all]))
    assert [entry for entry in tmp_path.iterdir() if entry.is_dir()] == [got.folder]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, ZeroDivisionError])
def test_a_failure_leaves_nothing(tmp_path, error):
    class Failing(Listed):
        def records(self, split, start=0):
            yield from self.all[:3]
            raise error

    with pytest.raises(error):
        cache.cached(Failing(grey(5).all), "train", DECODER, tmp_path, "tiny")
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]


def _cut(folder: Path) -> None:
    with (folder / "images.npy").open("r+b") as file:
        file.truncate(200)


def _swap(folder: Path) -> None:
    np.save(folder / "labels.npy", np.zeros(4, np.int64))


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _swap,
        lambda folder: (folder / "labels.npy").unlink(),
        lambda folder: (folder / "labels.npy").write_bytes(b""),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "meta.json").write_text("[]"),
        shutil.rmtree,
    ],
    ids=["cut images", "other labels", "no labels", "empty labels", "broken meta", "other meta", "gone"],
)
def test_a_damaged_folder_is_made_again(tmp_path, damage):
    before = cache.cached(grey(5), "train", DECODER, tmp_path, "tiny")
    expected, folder = np.array(before.images), before.folder
    del before
    damage(folder)
    got = cache.cached(grey(5), "train", DECODER, tmp_path, "tiny")
    assert got.folder == folder
    np.testing.assert_array_equal(got.images, expected)
    np.testing.assert_array_equal(got.labels, np.arange(5))


def test_a_disk_that_is_too_small_is_said_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 300))
    with pytest.raises(UserError, match=r"^\S+: 0.00 GB needed, 0.00 GB free; paths.data_dir=[^\n]*$"):
        cache.cached(grey(5), "train", DECODER, tmp_path, "tiny")


def test_a_write_that_fails_leaves_nothing_and_is_one_line(tmp_path):
    """A file may grow to 4 KB only: what the system says of a full disk, at the same calls."""
    body = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    cached(grey(500), 'train', Decoder(8, 1), place, 'tiny')\n"
        "except UserError as error:\n    print(error)"
    )
    printed = child(tmp_path, body).communicate(timeout=60)[0]
    assert "could not be written" in printed
    assert "paths.data_dir=" in printed
    assert printed.count("\n") == 1
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]


def test_a_place_that_cannot_be_one_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^\S+ could not be written: [^\n]*$"):
        cache.cached(grey(5), "train", DECODER, tmp_path / "file", "tiny")


def test_mixed_sizes_are_refused_by_name_or_cropped(tmp_path):
    sizes = [(8, 8), (8, 8), (10, 10)]
    source = Listed([Record(encoded(noise(*size, 1)), -1, f"{k}.png") for k, size in enumerate(sizes)])
    message = r"^2.png: 10 x 10 pixels where 0.png has 8 x 8; data.crop=center accepts mixed sizes$"
    with pytest.raises(UserError, match=message):
        cache.cached(source, "train", DECODER, tmp_path, "tiny")
    got = cache.cached(source, "train", Decoder(8, 1, crop="center"), tmp_path, "tiny")
    assert got.images.shape == (3, 1, 8, 8)


def test_fewer_or_no_images_than_announced(tmp_path):
    class Short(Listed):
        def count(self, split):
            return 7

    with pytest.raises(UserError, match=r"5 images read where 7 were announced"):
        cache.cached(Short(grey(5).all), "train", DECODER, tmp_path, "tiny")
    with pytest.raises(UserError, match=r"^tiny: no train images$"):
        cache.cached(Listed([]), "train", DECODER, tmp_path, "tiny")

"""The zip file of EDM's layout: against Python's zipfile, against the layout's rules, and beyond 4 GiB."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorafusion.data import edm_zip
from lorafusion.data.cache import cached
from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.data.zip_directory import entries
from lorafusion.errors import UserError


def arrays(n: int, side: int = 8, channels: int = 3, classes: int | None = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    labels = np.full(n, -1) if classes is None else rng.integers(0, classes, n)
    return rng.integers(0, 256, (n, channels, side, side), np.uint8), labels


def silent(done: int, total: int) -> None:
    pass


def written(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    return edm_zip.write(images, labels, path, silent)


def read_by_the_rules(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """As the layout is defined, with nothing of ours: raises AssertionError where a rule is broken."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        assert sorted(archive.namelist()) == sorted([*names, "dataset.json"])
        pixels = []
        for k, name in enumerate(names):
            number = f"{k:08d}"
            assert name == f"{number[:5]}/img{number}.png"
            image = Image.open(io.BytesIO(archive.read(name)))
            assert image.mode in ("L", "RGB")
            assert image.width == image.height
            assert image.width == 2 ** int(np.floor(np.log2(image.width)))
            pixels.append(np.asarray(image) if image.mode == "RGB" else np.asarray(image)[..., None])
        assert len({array.shape for array in pixels}) == 1
        listed = json.loads(archive.read("dataset.json"))["labels"]
    if listed is None:
        return np.stack(pixels), None
    labels = dict(listed)
    assert len(labels) == len(listed) == len(names)
    return np.stack(pixels), np.array([labels[name] for name in names])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [7, None])
def test_it_keeps_the_rules_and_reads_back_equal(tmp_path, channels, classes):
    images, labels = arrays(40, 16, channels, classes)
    path = tmp_path / "set.zip"
    sha256 = written(path, images, labels)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    pixels, listed = read_by_the_rules(path)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), images)
    if classes is None:
        assert listed is None
    else:
        np.testing.assert_array_equal(listed, labels)
    got = cached(Folder(path), "train", Decoder(16, channels), tmp_path, "set")
    np.testing.assert_array_equal(got.images, images)
    np.testing.assert_array_equal(got.labels, labels)


def test_the_same_images_give_the_same_bytes(tmp_path):
    images, labels = arrays(30)
    first = written(tmp_path / "1.zip", images, labels)
    assert written(tmp_path / "2.zip", images, labels) == first
    labels[3] += 1
    assert written(tmp_path / "3.zip", images, labels) != first


@pytest.mark.parametrize("side", [1, 2, 64])
def test_a_png_is_what_pillow_says(side):
    for channels, mode in ((1, "L"), (3, "RGB")):
        pixels = arrays(1, side, channels)[0][0]
        Image.open(io.BytesIO(edm_zip.png(pixels))).verify()  # its checksums
        image = Image.open(io.BytesIO(edm_zip.png(pixels)))
        assert (image.mode, image.size) == (mode, (side, side))
        np.testing.assert_array_equal(np.asarray(image).reshape(side, side, channels).transpose(2, 0, 1), pixels)


@pytest.mark.parametrize("count", [65_535])  # the first that needs it
def test_more_entries_than_a_plain_zip_file_can_count(tmp_path, count):
    """From 65,535 on the end of the directory is a ZIP64 one."""
    path = tmp_path / "many.zip"
    with path.open("wb") as file:
        archive = edm_zip._Zip(file)
        for k in range(count):
            archive.add(f"{k}.bin", [b"%d" % k])
        archive.close(lambda k: f"{k}.bin")
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == count
        assert archive.read(f"{count - 1}.bin") == b"%d" % (count - 1)
    assert [entry.name for entry in entries(path)] == [f"{k}.bin" for k in range(count)]
    assert b"PK\6\6" in path.read_bytes()[-200:]


class Sparse(io.FileIO):
    """Leaves holes for large pieces."""

    def write(self, data) -> int:
        if len(data) < 1 << 20:
            return super().write(data)
        self.seek(len(data), 1)
        return len(data)


def test_entries_beyond_4_gib(tmp_path, monkeypatch):
    """Five entries of 1 GiB each, as holes in the file, and then a small one."""
    real = edm_zip.zlib.crc32
    monkeypatch.setattr(edm_zip.zlib, "crc32", lambda data, start=0: real(data, start) if len(data) < 1 << 20 else 0)
    path = tmp_path / "large.zip"
    with Sparse(path, "w") as file:
        archive = edm_zip._Zip(file)
        archive.digest = type("Nothing", (), {"update": lambda self, data: None})()
        for k in range(5):
            archive.add(f"{k}.bin", [bytes(1 << 28)] * 4)
        archive.add("5.bin", [b"small"])
        archive.close(lambda k: f"{k}.bin")
    monkeypatch.undo()
    assert path.stat().st_size > 5 << 30
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{k}.bin" for k in range(6)]
        assert archive.read("5.bin") == b"small"
    ours = list(entries(path))
    assert [(e.name, e.size) for e in ours] == [(f"{k}.bin", 1 << 30) for k in range(5)] + [("5.bin", 5)]
    assert ours[5].offset > 5 << 30


@pytest.mark.parametrize(("side", "near"), [(48, "32 or 64"), (3, "2 or 4"), (65, "64 or 128")])
def test_a_side_that_is_no_power_of_two_is_refused(tmp_path, side, near):
    images, labels = arrays(2, side)
    with pytest.raises(UserError, match=rf"^data.resolution={side}: [^\n]* {near}$"):
        written(tmp_path / "set.zip", images, labels)
    assert not list(tmp_path.iterdir())


def test_labels_are_for_all_images_or_for_none(tmp_path):
    images, labels = arrays(5)
    labels[2] = -1
    with pytest.raises(UserError, match=r"1 of 5 images have no label; dataset.json names all or none$"):
        written(tmp_path / "set.zip", images, labels)

"""Images of one's own: class folders, plain images, the zip file of EDM's tools."""

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from lorafusion.data.cache import Cached, cached
from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.errors import UserError
from tests.data.images import encoded, noise, write_folder, write_zip


def png(k: int) -> bytes:
    return encoded(noise(8, 8, seed=k))


CLASSES = {"dog/2.png": png(2), "cat/9.png": png(9), "cat/1.png": png(1), "emu/x/5.png": png(5), "README.md": b"mine"}
EDM = {f"00000/img{k:08d}.png": png(k) for k in range(6)}
EDM_LABELS = [[name, k * 2 % 5] for k, name in enumerate(EDM)]


def pixels(*ks: int) -> np.ndarray:
    return np.stack([noise(8, 8, seed=k).transpose(2, 0, 1) for k in ks])


def decoded(path: Path, cache: Path, split: str = "train") -> Cached:
    return cached(Folder(path), split, Decoder(8, 3), cache, "mine")


def refused(path: Path | None, message: str) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        list(Folder(path).records("train"))


@pytest.fixture(params=["folder", "zip"])
def place(request, tmp_path):
    """Writes files as a folder or as a zip file."""

    def write(files: dict[str, bytes], labels: object = "absent") -> Path:
        if request.param == "zip":
            return write_zip(tmp_path / "images.zip", files, labels)
        if labels != "absent":
            files = files | {"dataset.json": json.dumps({"labels": labels}).encode()}
        return write_folder(tmp_path / "images", files)

    return write


def test_class_folders(place, tmp_path):
    got = decoded(place(CLASSES), tmp_path)
    np.testing.assert_array_equal(got.images, pixels(1, 9, 2, 5))
    assert got.labels.tolist() == [0, 0, 1, 2]


def test_plain_images_are_unlabelled(place, tmp_path):
    got = decoded(place({"b.png": png(1), "a.JPEG": png(0), "notes.txt": b"x"}), tmp_path)
    np.testing.assert_array_equal(got.images, pixels(0, 1))
    assert got.labels.tolist() == [-1, -1]


def test_the_zip_of_edm(place, tmp_path):
    got = decoded(place(EDM, EDM_LABELS[::-1]), tmp_path)
    np.testing.assert_array_equal(got.images, pixels(*range(6)))
    assert got.labels.tolist() == [0, 2, 4, 1, 3, 0]


def test_the_zip_of_edm_without_labels(place, tmp_path):
    assert decoded(place(EDM, None), tmp_path).labels.tolist() == [-1] * 6


def test_a_zip_made_of_a_folder_gives_the_folder_s_arrays(tmp_path):
    """Class folders -> dataset.json, as EDM's tool converts them."""
    folder = decoded(write_folder(tmp_path / "images", CLASSES), tmp_path)
    files, labels = {}, []
    for k, name in enumerate(sorted(name for name in CLASSES if name.endswith(".png"))):
        files[f"00000/img{k:08d}.png"] = CLASSES[name]
        labels.append([f"00000/img{k:08d}.png", ["cat", "dog", "emu"].index(name.split("/")[0])])
    zipped = decoded(write_zip(tmp_path / "images.zip", files, labels), tmp_path)
    assert zipped.folder != folder.folder
    np.testing.assert_array_equal(zipped.images, folder.images)
    np.testing.assert_array_equal(zipped.labels, folder.labels)


@pytest.mark.parametrize("name", ["test", "val"])
def test_splits(place, tmp_path, name):
    files = {"train/cat/1.png": png(1), "train/dog/2.png": png(2), f"{name}/dog/3.png": png(3)}
    path = place(files)
    assert Folder(path).splits() == ("train", "test")
    assert decoded(path, tmp_path).labels.tolist() == [0, 1]
    test = decoded(path, tmp_path, "test")
    np.testing.assert_array_equal(test.images, pixels(3))
    assert test.labels.tolist() == [1]  # numbered as in training, though no cat is there


def test_without_split_folders_everything_trains(place):
    assert Folder(place(CLASSES)).splits() == ("train",)
    files = {"train/1.png": png(1), "car/2.png": png(2)}  # a class named train
    assert Folder(place(files)).splits() == ("train",)


def test_the_fingerprint_follows_files_and_labels(tmp_path):
    def fingerprint(files, labels="absent"):
        return Folder(write_zip(tmp_path / "images.zip", files, labels)).fingerprint("train")

    prints = [
        fingerprint(EDM, EDM_LABELS),
        fingerprint(EDM, [*EDM_LABELS[:-1], [EDM_LABELS[-1][0], 4]]),
        fingerprint(EDM, None),
        fingerprint(dict(list(EDM.items())[1:]), None),
        fingerprint(EDM | {"00000/img00000000.png": png(77)}, None),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(EDM, EDM_LABELS) == prints[0]
    os.utime(tmp_path / "images.zip", ns=(1, 1))
    assert Folder(tmp_path / "images.zip").fingerprint("train") == prints[0]


def _sum(source: Folder) -> int:
    return sum(int(np.frombuffer(record.image, np.uint8).sum()) for record in source.records("train"))


def test_each_process_opens_the_zip_for_itself(tmp_path):
    """One open zip file shared by two processes gives nonsense, for they share its place in the file."""
    files = {f"{k}.png": png(k) for k in range(200)}
    source = Folder(write_zip(tmp_path / "images.zip", files))
    expected = sum(int(np.frombuffer(data, np.uint8).sum()) for data in files.values())
    started = source.records("train")
    next(started)  # the parent is reading when the children are forked
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_sum, [source] * 4) == [expected] * 4
    assert len(list(started)) == 199


def test_no_path_is_one_line():
    refused(None, "data=folder needs data.path=")


def test_an_empty_folder_is_one_line(tmp_path):
    refused(tmp_path, f"{tmp_path}: no images in it")
    refused(write_folder(tmp_path / "texts", {"a.txt": b""}), "texts: no images in it")
    refused(tmp_path / "none", "none: no such folder or zip file")


def test_a_bad_image_is_named(place, tmp_path):
    path = place({"cat/1.png": png(1), "cat/2.png": png(2)[:100]})
    with pytest.raises(UserError, match=rf"^{path}/cat/2.png: not a readable image [^\n]*$"):
        decoded(path, tmp_path)


def test_an_image_beside_class_folders_is_named(place):
    refused(place({"cat/1.png": png(1), "2.png": png(2)}), "2.png lies beside folders of images")


def test_a_class_that_training_does_not_have_is_named(place):
    refused(place({"train/cat/1.png": png(1), "test/dog/2.png": png(2)}), "test/dog/2.png: class 'dog' is not among")


def test_two_test_splits_are_refused(place):
    files = {"train/1.png": png(1), "test/2.png": png(2), "val/3.png": png(3)}
    refused(place(files), "test and val are both there")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([*EDM_LABELS, ["00000/none.png", 1]], "dataset.json: names '00000/none.png', which is not among the images"),
        (EDM_LABELS[:-2], "dataset.json: 4 labels for 6 images; '00000/img00000004.png' has none"),
        ([*EDM_LABELS, EDM_LABELS[0]], "dataset.json: names an image twice"),
        ([[name, -1] for name in EDM], "-1 is no label of '00000/img00000000.png': a class is a number, 0 or more"),
        ([[name, 1 << 31] for name in EDM], "label 2147483648 of '00000/img00000000.png' is not a class number"),
        ([[name, 0.5] for name in EDM], "0.5 is no label of"),
        ([[name, True] for name in EDM], "true is no label of"),
        ([[name, [0, 1]] for name in EDM], r"\[0, 1 is no label of"),
        ([[name] for name in EDM], "dataset.json: not of the form"),
        ([1, 2], "dataset.json: not of the form"),
        (7, "dataset.json: not of the form"),
    ],
)
def test_labels_that_do_not_fit(place, labels, message):
    refused(place(EDM, labels), message)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe\x00", b"[]", b"{}", b"[" * 100_000])
def test_a_broken_dataset_json_is_named(place, data):
    refused(place(EDM | {"dataset.json": data}), "dataset.json: not of the form")

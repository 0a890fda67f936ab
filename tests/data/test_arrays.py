"""Images in an .npz file: read as they were saved, one at a time, and refused by name where they are something else."""

import tracemalloc

import numpy as np
import pytest

from lorafusion.data.arrays import Arrays
from lorafusion.errors import UserError
from tests.data.images import noise


def images(n: int = 5, channels: int = 3) -> np.ndarray:
    return np.stack([noise(8, 8, channels, k) for k in range(n)])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [("images", "labels"), ("arr_0", "arr_1")])
@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_read_as_they_were_saved(tmp_path, save, names, channels):
    labels = np.array([3, 0, 9, 1, 1], np.uint16)
    save(tmp_path / "a.npz", **dict(zip(names, (images(5, channels), labels), strict=True)))
    source = Arrays(tmp_path / "a.npz")
    records = list(source.records("train"))
    assert source.count("train") == 5
    np.testing.assert_array_equal(np.stack([r.image for r in records]), images(5, channels))
    assert [r.label for r in records] == labels.tolist()


def test_without_labels_and_with_one_channel(tmp_path):
    np.savez(tmp_path / "a.npz", images=images(2, 1)[..., None])
    records = list(Arrays(tmp_path / "a.npz").records("train"))
    assert [r.label for r in records] == [-1, -1]
    assert records[0].image.shape == (8, 8)


def test_the_fingerprint_follows_the_content(tmp_path):
    prints = set()
    for k in range(2):
        np.savez(tmp_path / "a.npz", images=images() + k)
        prints.add(Arrays(tmp_path / "a.npz").fingerprint("train"))
    assert len(prints) == 2


def test_images_are_not_read_all_at_once(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((2000, 100, 100), np.uint8))  # 20 MB in 20 KB
    tracemalloc.start()
    try:
        assert sum(1 for _ in Arrays(tmp_path / "a.npz").records("train")) == 2000
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 8, 8))}, "images are float64"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, r"images are uint8 \(2, 8, 8, 4\)"),
        ({"images": np.array([None, 1], object)}, "images are object"),
        ({"images": images(), "labels": np.zeros(5)}, "labels are float64"),
        ({"images": images(), "labels": np.zeros(4, int)}, r"labels are int64 \(4,\)"),
        ({"other": images()}, "no array images or arr_0; it has other.npy"),
    ],
)
def test_other_arrays_are_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=rf"a\.npz: {message}[^\n]*$"):
        list(Arrays(tmp_path / "a.npz").records("train"))


def test_a_file_that_was_cut_short_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=images())
    whole = (tmp_path / "a.npz").read_bytes()
    for keep in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.npz").write_bytes(whole[:keep])
        with pytest.raises(UserError, match=r"a\.npz: not a readable npz file [^\n]*$"):
            list(Arrays(tmp_path / "a.npz").records("train"))

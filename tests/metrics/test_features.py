"""Blocks of images: the same bits for any number of processes, with an extractor that notices all that varies."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from lorafusion.metrics.features import Extracted, check_images, look

CPU = torch.device("cpu")
ALL = {"moments", "features", "logits"}


class Sensitive:
    """Its features tell an image's pixels, its place in the block, and the first image of the block."""

    name, resize, weights_sha256 = "sensitive", "none", ""

    def __init__(self, block: int = 4):
        self.block = block

    def load(self, device: torch.device) -> None:
        pass

    def __call__(self, images: torch.Tensor) -> Extracted:
        assert len(images) == self.block
        x = images.float().mean(dim=(1, 2, 3))
        features = torch.stack((x, torch.arange(self.block) / 7, x[:1].expand(self.block) / 3), dim=1)
        return Extracted(features, features.cumsum(1))


def images(n: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), np.uint8)


def tensors(seen) -> list[torch.Tensor]:
    return [seen.features, seen.logits, seen.moments.mean, seen.moments.covariance]


def _one_of(rank: int, world_size: int, n: int, folder) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world_size)
    torch.save(tensors(look(Sensitive(), images(n), ALL, CPU)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("world_size", "n"), [(3, 5)])  # the third has no block of its own
def test_any_number_of_processes_gives_the_same_bits(world_size, n, tmp_path):
    mp.spawn(_one_of, (world_size, n, tmp_path), nprocs=world_size)
    whole = tensors(look(Sensitive(), images(n), ALL, CPU))
    for rank in range(world_size):
        for mine, expected in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), whole, strict=True):
            assert torch.equal(mine, expected)


def test_what_is_kept():
    x = images(9)
    seen = look(Sensitive(), x, ALL, CPU)
    assert seen.n == 9
    assert seen.features is not None
    np.testing.assert_allclose(seen.features[:, 0], x.mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(seen.features[:, 1], (np.arange(9) % 4).astype(np.float32) / 7)
    assert seen.moments is not None
    np.testing.assert_allclose(seen.moments.mean, seen.features.double().mean(0), rtol=1e-9)
    alone = look(Sensitive(), x, {"moments"}, CPU)
    assert (alone.features, alone.logits) == (None, None)


def test_reports_each_block():
    said = []
    look(Sensitive(), images(9), {"moments"}, CPU, lambda *done: said.append(done))
    assert said == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (images().astype(np.float32) / 255, "uint8, 0 .. 255; got float32"),
        (images().astype(np.int64), "got int64"),
        ((images() > 100).astype(np.uint8), "0 and 1 alone"),
        (images().transpose(0, 2, 3, 1), r"C = 1 or 3; got \(30, 8, 8, 3\)"),
        (images()[:, :, :6], r"got \(30, 3, 6, 8\)"),
        (images()[:, :2], r"got \(30, 2, 8, 8\)"),
        (images()[:1], "N at least 2"),
        (images()[0], r"got \(3, 8, 8\)"),
    ],
)
def test_refuses_what_are_no_images(bad, reason):
    with pytest.raises(ValueError, match=reason):
        check_images(bad)


def test_refuses_features_that_are_maps():
    extractor = Sensitive()
    extractor.__class__ = type("Maps", (Sensitive,), {"__call__": lambda self, x: Extracted(x.float())})
    with pytest.raises(ValueError, match=r"gives features \(4, 3, 8, 8\) for 4 images; a vector"):
        look(extractor, images(), {"moments"}, CPU)

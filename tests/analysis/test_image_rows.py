"""Rows of images: which is which, what a classifier is told to say of them, and pictures pixel by pixel."""

import numpy as np
import pytest
import torch

from lorafusion.analysis.class_interpolation import ClassInterpolation
from lorafusion.analysis.class_scaling import ClassScaling
from lorafusion.analysis.image_rows import Subject, check_alike, draw, probabilities, tell
from lorafusion.analysis.row_pictures import image_sheet
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.errors import UserError
from lorafusion.metrics.features import Extracted
from lorafusion.pictures import to_uint8
from lorafusion.samplers.heun import Heun
from tests.analysis.denoisers import edm, moved

SAMPLER = Heun(2, 0.1, 10)
SEEDS = torch.tensor([5, 0])


class Brightness:
    """Three classes by how bright an image is; it sees the first image of a block as the others."""

    name, resize, block, num_classes, weights_sha256 = "brightness", "none", 4, 3, "0"

    def __call__(self, images):
        x = images.double().mean(dim=(1, 2, 3)) / 255
        return Extracted(x[:, None], torch.stack((x, 1 - x, 0 * x), dim=1))


@pytest.fixture(scope="module")
def denoiser():
    return moved(edm(ClassLoRA(), num_classes=3))


def test_each_image_has_its_label_and_its_seed_whatever_the_batch(denoiser):
    rows = ClassInterpolation([[0, 2], [1, 0]], steps=3).rows(3)
    images = draw(Subject(denoiser, SAMPLER), rows, SEEDS, 4)
    assert images.shape == (2, 2, 3, 8, 8, 1)
    for r, row in enumerate(rows):
        for s, label in enumerate(row.label):
            alone = denoiser.sample(SAMPLER, SEEDS, label.expand(2, -1), 4)
            assert np.array_equal(images[r, :, s], to_uint8(alone))
    assert np.array_equal(images[0, :, 0], images[1, :, 2])  # both are class 0
    assert not np.array_equal(images[0, :, 0], images[0, :, 2])


def test_probabilities_are_those_of_each_image(denoiser):
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 8, 8, 1), dtype=np.uint8)
    found = probabilities(Brightness(), images, 3, torch.device("cpu"))
    x = images[1, 0, 2].mean() / 255
    np.testing.assert_allclose(found[1, 0, 2], np.exp([x, 1 - x, 0]) / np.exp([x, 1 - x, 0]).sum(), rtol=1e-6)
    with pytest.raises(UserError, match="brightness tells 3 classes apart, and the runs have 4"):
        probabilities(Brightness(), images, 4, torch.device("cpu"))


def test_what_is_told(denoiser):
    rows = ClassScaling([0, 1], steps=3).rows(3)
    images = {"one": np.zeros((2, 2, 3, 8, 8, 1), np.uint8), "two": np.full((2, 2, 3, 8, 8, 1), 9, np.uint8)}
    p = np.random.default_rng(0).dirichlet(np.ones(3), (2, 2, 3))
    found = tell(rows, SEEDS, images, {"one": p, "two": p[::-1]}, shown=1)
    assert found.arrays["images"].shape == (2, 2, 2, 3, 8, 8, 1)
    assert found.arrays["labels"].shape == (2, 3, 3)
    lines = found.tables["confidence"]
    assert len(lines) == 2 * 2 * 2 * 3
    told = {(x["run"], x["row"], x["seed"], x["a"], x["class"]): x for x in lines}
    line = told["two", "a times class 1", 0, 1.0, 1]
    assert line["probability"] == p[0, 1, 2, 1]
    assert line["top"] == p[0, 1, 2].argmax()
    means = {(m["run"], m["row"]): m["mean"] for m in found.numbers["probability"]}
    np.testing.assert_allclose(means["one", "a times class 0"], p[0, :, :, 0].mean(axis=0))
    assert {*found.pictures} == {"images", "confidence"}
    assert {*tell(rows, SEEDS, images, {}, shown=1).pictures} == {"images"}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_every_image_pixel_by_pixel(channels):
    """All of them, enlarged by a whole factor, wherever its captions put them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows = ClassScaling([0, 1], steps=3).rows(3)
    draws = np.random.default_rng(0)
    images = {name: draws.integers(0, 256, (2, 2, 3, 20, 20, channels), dtype=np.uint8) for name in ("one", "two")}
    canvas = FigureCanvasAgg(image_sheet(rows, images))
    canvas.draw()
    sheet = np.asarray(canvas.buffer_rgba())[..., :3]
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (3 * 20, 3 * 20))[:, :, ::3, ::3]
    for of_run in images.values():
        for image in of_run.reshape(-1, 20, 20, channels):
            corner = windows[:, :, :3, :3] == image[:3, :3, 0]
            found = np.argwhere(corner.all(axis=(2, 3)))
            assert len(found) >= 1
            large = np.broadcast_to(image, (20, 20, 3)).repeat(3, 0).repeat(3, 1)
            assert any(np.array_equal(sheet[y : y + 60, x : x + 60], large) for y, x in found)


def test_runs_that_do_not_go_together(denoiser):
    assert check_alike({"a": Subject(denoiser, SAMPLER)}) == 3
    with pytest.raises(UserError, match="b is unconditional"):
        check_alike({"a": Subject(denoiser, SAMPLER), "b": Subject(edm(), SAMPLER)})
    with pytest.raises(UserError, match="a: 3 classes, 1 x 8 x 8 and b: 4 classes, 1 x 8 x 8"):
        check_alike({"a": Subject(denoiser, SAMPLER), "b": Subject(edm(num_classes=4), SAMPLER)})

"""The network against its published size and, where the real files are, its published accuracy."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lorafusion.data.hub import Hub
from lorafusion.data.module import ImageData
from lorafusion.errors import UserError
from lorafusion.metrics.extractor.cifar_resnet import FILE, CifarResnet, ResNet20
from lorafusion.metrics.features import look
from lorafusion.metrics.fid import FID

CPU = torch.device("cpu")


def test_has_the_published_size():
    assert sum(p.numel() for p in ResNet20().parameters()) == 269_722  # "0.27M", table 6 of the paper


@pytest.fixture
def file(tmp_path) -> Path:
    """As published: `state_dict` within a checkpoint, names with `module.`, no counters of batches."""
    state = {f"module.{k}": v for k, v in ResNet20().state_dict().items() if "num_batches" not in k}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "weights.th")
    return tmp_path / "weights.th"


def test_reads_a_file_of_the_published_layout(file):
    extractor = CifarResnet(str(file))
    extractor.load(CPU)
    x = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features, logits = extractor(x)
    assert features.shape == (3, 64)
    assert logits is not None
    assert torch.equal(logits, features @ extractor.net.linear.weight.T + extractor.net.linear.bias)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 64, 64)])
def test_refuses_another_size(file, shape):
    extractor = CifarResnet(str(file))
    extractor.load(CPU)
    with pytest.raises(ValueError, match=r"reads images \(3, 32, 32\); got"):
        extractor(torch.zeros(shape, dtype=torch.uint8))


def test_refuses_other_weights(tmp_path):
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(16, 3, 3, 3)}}, tmp_path / "w.th")
    with pytest.raises(UserError, match="does not fit ResNet20"):
        CifarResnet(str(tmp_path / "w.th")).load(CPU)


class TestReal:
    @pytest.fixture(scope="class")
    def real(self, tmp_path_factory) -> tuple[CifarResnet, np.ndarray, np.ndarray]:
        folder = Path(os.environ.get("LORAFUSION_TEST_DATA", "/nowhere"))
        if not (folder / "cifar_resnet" / FILE).is_file():
            pytest.skip("LORAFUSION_TEST_DATA names no folder with cifar_resnet/ and cifar10/")
        source = Hub("uoft-cs/cifar10", folder / "cifar10")
        data = ImageData("cifar10", source, 32, 3, 10, 1, 0, 0, tmp_path_factory.mktemp("data"))
        extractor = CifarResnet(str(folder / "cifar_resnet" / FILE))
        extractor.load(CPU)
        images, labels = data.arrays("test")
        return extractor, images[:2000], labels[:2000]

    def test_reads_the_test_images(self, real):
        """91.7 % of all; 0.6 % is the standard error with 2,000."""
        extractor, images, labels = real
        logits = look(extractor, images, {"logits"}, CPU).logits
        assert logits is not None
        assert (logits.argmax(1).numpy() == labels).mean() == pytest.approx(0.917, abs=0.02)

    def test_halves_are_near_and_noise_is_far(self, real):
        extractor, images, _ = real
        noise = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), np.uint8)
        a, b, far = (look(extractor, x, {"moments"}, CPU) for x in (images[:1000], images[1000:], noise))
        assert a.moments is not None
        near, noisy = (FID(extractor).compare(x, a.moments)[FID(extractor).name] for x in (b, far))
        assert 0 < near < 0.02 * noisy

"""The classifier as an extractor: the numbers of metric=digits, kept and given weights, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lorafusion.data.mnist_5k import Mnist5k
from lorafusion.data.module import ImageData
from lorafusion.errors import UserError
from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digits import Digits as Metric
from lorafusion.metrics.extractor.digits import Digits
from lorafusion.metrics.features import look
from lorafusion.metrics.fid import FID
from lorafusion.tasks.evaluate import evaluate
from tests.metrics.conftest import squares
from tests.tasks.runs import composed

CPU = torch.device("cpu")


class Squares:
    """Data of ten classes that are no digits, and learnt in a few steps."""

    resolution, channels = 16, 1

    def __init__(self, labels: int = 10):
        self.labels = labels

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = squares(100, seed=split == "test")
        return images, labels + self.labels - 10


@pytest.fixture
def trainings(monkeypatch) -> list[int]:
    """One entry a training, of few steps."""
    calls, train = [], digit_classifier.train
    monkeypatch.setattr(digit_classifier, "train", lambda *a, **k: calls.append(1) or train(*a, **{**k, "steps": 30}))
    return calls


@pytest.fixture
def digits(real, monkeypatch, tmp_path) -> Digits:
    """On real digits, trained for real."""
    monkeypatch.setattr(digit_classifier, "train", lambda *_, **__: real.net)
    extractor = Digits(ImageData("mnist_5k", Mnist5k(), 16, 1, 10, 128, 0, 0, tmp_path), tmp_path)
    extractor.load(CPU)
    return extractor


def test_its_distance_is_that_of_the_digits_metric(digits, real, tmp_path):
    metric = Metric(tmp_path)
    metric.prepare(*real.train, *real.test)
    seen = [look(digits, images, {"moments", "logits"}, CPU) for images in (real.test[0], real.train[0])]
    assert seen[0].logits is not None
    assert seen[1].moments is not None
    expected = metric.measure(*real.test)
    assert FID(digits).compare(seen[0], seen[1].moments) == {"frechet_distance_digits": expected.distance}
    assert (seen[0].logits.argmax(1).numpy() == real.test[1]).mean() == expected.agreement


def test_halves_are_near_and_noise_is_far(digits, real):
    draw = np.random.default_rng(0)
    images, noise = draw.permutation(real.test[0]), draw.integers(0, 256, real.test[0].shape, np.uint8)
    a, b, far = (look(digits, x, {"moments"}, CPU) for x in (images[:500], images[500:], noise))
    assert a.moments is not None
    near, noisy = (FID(digits).compare(x, a.moments)["frechet_distance_digits"] for x in (b, far))
    assert 0 < near < 0.05 * noisy


def test_is_trained_once_and_its_weights_may_be_given(trainings, tmp_path):
    first, second = (Digits(Squares(), tmp_path, min_accuracy=0.0) for _ in range(2))
    first.load(CPU)
    second.load(CPU)
    assert len(trainings) == 1
    (kept,) = tmp_path.glob("*.pt")
    given = Digits(Squares(), tmp_path / "none", str(kept))
    given.load(CPU)
    assert given.weights_sha256 == second.weights_sha256 == first.weights_sha256
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="does not fit DigitClassifier"):
        Digits(Squares(), tmp_path, str(tmp_path / "other.pt")).load(CPU)


@pytest.mark.usefixtures("trainings")
def test_refusals(tmp_path):
    with pytest.raises(UserError, match=r"data with labels 0 \.\. 9"):
        Digits(Squares(labels=12), tmp_path).load(CPU)
    with pytest.raises(UserError, match=r"reads only .* below 100\.1% \(min_accuracy\) it is no judge"):
        Digits(Squares(), tmp_path, min_accuracy=1.001).load(CPU)
    extractor = Digits(Squares(), tmp_path, min_accuracy=0.0)
    extractor.load(CPU)
    for shape in ((2, 3, 16, 16), (2, 1, 32, 32)):
        with pytest.raises(ValueError, match=r"reads images \(1, 16, 16\); got"):
            extractor(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.usefixtures("trainings")
def test_a_plain_config_makes_it_and_task_evaluate_gives_it_the_runs_data(tmp_path):
    run = composed(
        "data=synthetic", "data.resolution=16", "data.channels=1", "data.source.n=60", "data.source.n_test=40"
    )
    (tmp_path / "run").mkdir()
    OmegaConf.save(run, tmp_path / "run/config.yaml", resolve=True)
    images, labels = squares(50)
    np.savez(tmp_path / "run/samples.npz", images=images[:, 0], labels=labels)
    chosen = ("metric=fid", "metric/extractor=digits", "metric.extractor.min_accuracy=0.0")
    cfg = composed("task=evaluate", f"samples={tmp_path / 'run'}", f"paths.data_dir={tmp_path}", *chosen)
    assert instantiate(cfg.metric, _convert_="all").extractor.data.name == "mnist_5k"
    evaluate(cfg)
    entry = json.loads((tmp_path / "run/metrics.json").read_text())["frechet_distance_digits"]
    assert entry["frechet_distance_digits"] > 0
    assert 0 <= entry["agreement"] <= 1
    assert entry["reference"]["dataset"] == "synthetic train"
    assert entry["extractor"]["resize"] == "none: 16 x 16"

"""The metric: what it says of real digits, noise and near misses, and what it refuses to judge."""

import numpy as np
import pytest

from lorafusion.errors import UserError
from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digit_classifier import weights_sha256
from lorafusion.metrics.digits import Digits
from tests.metrics.conftest import squares


@pytest.fixture
def metric(real, monkeypatch, tmp_path) -> Digits:
    monkeypatch.setattr(digit_classifier, "train", lambda *_, **__: real.net)
    metric = Digits(tmp_path)
    metric.prepare(*real.train, *real.test)
    return metric


class TestOnRealDigits:
    def test_the_training_digits_have_distance_0(self, metric, real):
        assert metric.measure(*real.train).distance == pytest.approx(0, abs=1e-9)

    def test_order_does_not_matter_to_the_last_bit(self, metric, real):
        images = real.test[0]
        assert metric.measure(images).distance == metric.measure(images[::-1]).distance

    def test_distances_rank_halves_noisy_digits_mixed_digits_and_noise(self, metric, real):
        images = real.test[0][:500]
        noise = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
        weak = (0.8 * images + 0.2 * noise).astype(np.uint8)
        superimposed = np.maximum(images, np.roll(images, 1, axis=0))
        distances = [metric.measure(x).distance for x in (images, weak, superimposed, noise)]
        assert distances == sorted(distances)
        assert 0 < 5 * distances[0] < distances[2]
        assert 20 * distances[0] < distances[3]

    def test_a_model_that_draws_one_digit_only_is_recognised_and_far_away(self, metric, real):
        images, labels = real.test
        ones, all_classes = metric.measure(images[labels == 1]), metric.measure(images[:100])
        assert ones.recognised > 0.9
        assert ones.distance > 5 * all_classes.distance

    def test_shares(self, metric, real):
        images, labels = real.test
        noise = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
        half = np.concatenate([images[:500], noise[:500]])
        assert metric.measure(half).recognised == pytest.approx(metric.measure(images[:500]).recognised / 2, abs=0.02)
        assert metric.measure(images, labels).agreement == metric.accuracy >= 0.96
        assert metric.measure(images, (labels + 1) % 10).agreement < 0.02

    def test_agreement_leaves_out_unlabelled_images(self, metric, real):
        images, labels = real.test
        some = np.where(np.arange(1000) < 100, labels, -1)
        assert metric.measure(images, some).agreement == metric.measure(images[:100], labels[:100]).agreement
        assert metric.measure(images, np.full(1000, -1)).agreement is None
        assert metric.measure(images).agreement is None

    def test_describes_what_the_numbers_depend_on(self, metric, real):
        told = metric.describe()
        assert told["extractor"]["weights_sha256"] == weights_sha256(real.net)
        assert told["extractor"]["held_out_accuracy"] == metric.accuracy
        assert told["reference"] == {"n": 4000, "fingerprint": digit_classifier.fingerprint(*real.train)}


class TestRefuses:
    def quick(self, monkeypatch, steps: int) -> None:
        train = digit_classifier.train
        monkeypatch.setattr(digit_classifier, "train", lambda *a, **k: train(*a, **{**k, "steps": steps}))

    def test_a_classifier_that_reads_too_few(self, monkeypatch, tmp_path):
        self.quick(monkeypatch, steps=1)
        with pytest.raises(UserError, match=r"reads only .*% of 50 held-out digits: below 96.0% .* no judge"):
            Digits(tmp_path).prepare(*squares(100), *squares(50, seed=1))

    def test_but_a_lower_bar_can_be_chosen(self, monkeypatch, tmp_path):
        self.quick(monkeypatch, steps=1)
        metric = Digits(tmp_path, min_accuracy=0.0)
        metric.prepare(*squares(100), *squares(50, seed=1))
        assert 0 <= metric.accuracy < 0.96

    @pytest.mark.parametrize("labels", [np.full(20, -1), np.arange(20), np.zeros(0, np.int64)])
    def test_a_dataset_without_digit_labels(self, labels, tmp_path):
        images = squares(20)[0]
        with pytest.raises(UserError, match=r"with labels 0 .. 9"):
            Digits(tmp_path).prepare(images[: len(labels)], labels, *squares(20))

"""The classifier on real digits, and what it does with images that are none."""

import numpy as np
import pytest
import torch

from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digit_classifier import DigitClassifier, augment, cached, fingerprint, to_float, train
from tests.metrics.conftest import squares


def recognised(net: DigitClassifier, images: np.ndarray | torch.Tensor) -> float:
    return (net.probabilities(images).amax(dim=1) > 0.9).double().mean().item()


class TestOnRealDigits:
    def test_reads_96_percent_of_held_out_digits(self, real):
        images, labels = real.test
        assert not {image.tobytes() for image in images} & {image.tobytes() for image in real.train[0]}
        assert (real.net.probabilities(images).argmax(1).numpy() == labels).mean() >= 0.96

    def test_is_sure_of_most_of_them(self, real):
        assert recognised(real.net, real.test[0]) > 0.85

    def test_recognises_neither_noise_nor_blank_images(self, real):
        rng = np.random.default_rng(0)
        assert recognised(real.net, rng.integers(0, 256, (500, 1, 16, 16), np.uint8)) < 0.02
        assert recognised(real.net, rng.normal(size=(500, 1, 16, 16)).clip(-1, 1)) < 0.02
        assert (
            recognised(real.net, np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(16, 2).repeat(16, 3)) < 0.02
        )

    def test_inverted_digits_are_mostly_not_read(self, real):
        images, labels = real.test
        assert (real.net.probabilities(255 - images).argmax(1).numpy() == labels).mean() < 0.5

    @pytest.mark.parametrize(("n", "size"), [(30, 1), (300, 100), (300, 255), (600, 256)])
    def test_same_bits_for_any_grouping_and_place(self, real, n, size):
        images = real.test[0][:n]
        together = real.net.features(images)
        apart = torch.cat([real.net.features(images[k : k + size]) for k in range(0, n, size)])
        assert torch.equal(together, apart)
        assert torch.equal(together, real.net.features(images[::-1]).flip(0))

    def test_uint8_and_floats_are_the_same_images(self, real):
        images = real.test[0][:10]
        expected = real.net.features(images)
        assert torch.equal(expected, real.net.features(torch.tensor(images)))
        assert torch.equal(expected, real.net.features(to_float(images)))
        torch.testing.assert_close(expected, real.net.features(images / 127.5 - 1), rtol=1e-5, atol=1e-5)


class TestShapesAndRanges:
    @pytest.mark.parametrize("resolution", [8, 16, 24, 28, 32, 50, 64])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_any_resolution_and_channels(self, resolution, channels):
        net = DigitClassifier(resolution, channels)
        images = squares(3, resolution, channels)[0]
        assert net.features(images).shape == (3, 64)
        assert net.probabilities(images).sum(1).tolist() == pytest.approx([1] * 3)

    def test_too_small(self):
        with pytest.raises(ValueError, match="at least 8"):
            DigitClassifier(4)

    @pytest.mark.parametrize("shape", [(2, 1, 16, 32), (2, 3, 16, 16), (2, 16, 16, 1), (16, 16), (0, 1, 16, 16)])
    def test_refuses_another_size(self, shape):
        with pytest.raises(ValueError, match=r"reads images \(N, 1, 16, 16\)"):
            DigitClassifier(16).features(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("value", [-1.01, 255.0, float("nan")])
    def test_refuses_floats_in_another_range(self, value):
        with pytest.raises(ValueError, match=r"\[-1, 1\]"):
            DigitClassifier(16).features(torch.full((1, 1, 16, 16), value))

    def test_refuses_other_integers(self):
        with pytest.raises(ValueError, match="uint8"):
            DigitClassifier(16).features(np.zeros((1, 1, 16, 16), np.int64))


class TestTrain:
    def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(self):
        images, labels = squares(40)
        before = torch.random.get_rng_state()
        first, again, other = (train(images, labels, steps=3, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert digit_classifier.weights_sha256(first) == digit_classifier.weights_sha256(again)
        assert digit_classifier.weights_sha256(first) != digit_classifier.weights_sha256(other)

    def test_learns_squares_and_reports_progress(self):
        seen = []
        net = train(*squares(200), steps=60, progress=lambda done, total: seen.append((done, total)))
        images, labels = squares(100, seed=1)
        assert (net.probabilities(images).argmax(1).numpy() == labels).mean() > 0.9
        assert seen == [(k + 1, 60) for k in range(60)]
        assert not any(p.requires_grad for p in net.parameters())

    def test_augmentation_keeps_the_range_and_moves_a_little(self):
        x = to_float(squares(20)[0])
        y = augment(x, torch.Generator().manual_seed(0))
        assert y.min() >= -1 - 1e-6
        assert y.max() <= 1 + 1e-6
        rows = torch.arange(16.0)
        where = [((z + 1).sum(dim=(1, 3)) * rows).sum(1) / (z + 1).sum(dim=(1, 2, 3)) for z in (x, y)]
        moved = (where[0] - where[1]).abs()
        assert 0.1 < moved.max() < 4


class TestCached:
    @pytest.fixture
    def trainings(self, monkeypatch):
        calls = []

        def quick(images, labels, **options):
            calls.append(options)
            return train(images, labels, steps=2, seed=options["seed"])

        monkeypatch.setattr(digit_classifier, "train", quick)
        return calls

    def test_trains_once_for_the_same_digits(self, trainings, tmp_path):
        digits = squares(20)
        first, second = (cached(*digits, tmp_path / "new") for _ in range(2))
        assert len(trainings) == 1
        assert torch.equal(first.features(digits[0]), second.features(digits[0]))
        assert len(list((tmp_path / "new").iterdir())) == 1

    def test_trains_again_for_other_pixels_labels_seeds_or_sizes(self, trainings, tmp_path):
        images, labels = squares(20)
        changed = images.copy()
        changed[0, 0, 0, 0] ^= 1
        cached(images, labels, tmp_path)
        cached(changed, labels, tmp_path)
        cached(images, (labels + 1) % 10, tmp_path)
        cached(images, labels, tmp_path, seed=1)
        cached(*squares(20, 24), tmp_path)
        assert len(trainings) == 5
        assert len(list(tmp_path.iterdir())) == 5

    @pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
    def test_a_damaged_file_is_replaced(self, trainings, tmp_path, damage):
        digits = squares(20)
        good = cached(*digits, tmp_path)
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:1000] if damage is None else damage)
        again = cached(*digits, tmp_path)
        assert len(trainings) == 2
        assert digit_classifier.weights_sha256(again) == digit_classifier.weights_sha256(good)
        assert list(tmp_path.iterdir()) == [file]

    def test_fingerprint_tells_shape_pixels_and_labels_apart(self):
        images, labels = squares(20)
        same = fingerprint(images.copy(), labels.astype(np.int32))
        assert fingerprint(images, labels) == same
        assert fingerprint(images.reshape(20, 1, 8, 32), labels) != same
        assert fingerprint(255 - images, labels) != same
        assert fingerprint(images, labels[::-1]) != same

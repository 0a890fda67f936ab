"""Gratings: their direction is their class, seen in the Fourier transform."""

import numpy as np
import pytest

from lorafusion.data.synthetic import Synthetic


def direction(image: np.ndarray) -> float:
    """Angle of the strongest wave, 0 <= angle < pi."""
    size = 512  # padded, for a fine grid of frequencies
    spectrum = np.abs(np.fft.fft2(image - image.mean(), (size, size)))
    fy, fx = np.unravel_index(spectrum.argmax(), spectrum.shape)
    frequencies = np.fft.fftfreq(size)
    return float(np.arctan2(frequencies[fy], frequencies[fx]) % np.pi)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_direction_is_the_class(channels):
    source = Synthetic(resolution=64, channels=channels, num_classes=4, n=24)
    records = list(source.records("train"))
    assert [record.label for record in records] == [k % 4 for k in range(24)]
    for record in records:
        image = record.image if channels == 1 else record.image[..., 1]
        assert image.shape == (64, 64)
        off = (direction(image.astype(float)) - np.pi * record.label / 4 + np.pi / 2) % np.pi - np.pi / 2
        assert abs(off) < np.pi / 8  # nearer to its class than to the next


def test_images_follow_from_seed_split_and_number():
    def images(split="train", **options):
        return [record.image.tobytes() for record in Synthetic(resolution=8, n=6, n_test=6, **options).records(split)]

    assert images() == images()
    assert len(set(images() + images("test") + images(seed=1))) == 18
    assert Synthetic(n=6).fingerprint("train") != Synthetic(n=6, seed=1).fingerprint("train")


def test_unlabelled():
    assert {record.label for record in Synthetic(num_classes=None, n=5).records("train")} == {-1}
    assert Synthetic(n=5).count("train") == 5

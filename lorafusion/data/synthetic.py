"""Images made by a formula, for trying out sizes and for tests: gratings whose direction is their class.

    pixel(x, y) = 1/2 + contrast/2 * cos(2 pi f (x cos a + y sin a) + phase),    a = pi * class / num_classes

with contrast, frequency and phase drawn per image, and a phase per colour.
"""

from collections.abc import Iterator

import numpy as np

from lorafusion.data.source import SPLITS, Record


class Synthetic:
    """resolution:   side in pixels.
    channels:     1 or 3.
    num_classes:  directions; None = one, and the images are unlabelled.
    n, n_test:    images in each split.
    seed:         of the images, not of the training.
    """

    def __init__(
        self,
        resolution: int = 32,
        channels: int = 3,
        num_classes: int | None = 10,
        n: int = 4096,
        n_test: int = 256,
        seed: int = 0,
    ):
        self.resolution, self.channels, self.num_classes, self.seed = resolution, channels, num_classes, seed
        self.sizes = {"train": n, "test": n_test}

    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def fingerprint(self, split: str) -> str:
        return f"synthetic/1 {self.resolution} {self.channels} {self.num_classes} {self.sizes[split]} {self.seed}"

    def count(self, split: str) -> int:
        return self.sizes[split]

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        x = (np.arange(self.resolution) + 0.5) / self.resolution
        for k in range(start, self.count(split)):
            label = -1 if self.num_classes is None else k % self.num_classes
            yield Record(self._image(split, k, label, x), label, f"synthetic {split} image {k}")

    def _image(self, split: str, k: int, label: int, x: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self.seed, SPLITS.index(split), k])
        angle = np.pi * max(label, 0) / (self.num_classes or 1)
        contrast, frequency = rng.uniform(0.5, 1), rng.uniform(1, 4)
        phase = rng.uniform(0, 2 * np.pi, self.channels)
        along = x[None, :] * np.cos(angle) + x[:, None] * np.sin(angle)  # (R, R)
        wave = np.cos(2 * np.pi * frequency * along[..., None] + phase)  # (R, R, C)
        pixels = np.round(127.5 + 127.5 * contrast * wave).astype(np.uint8)
        return pixels[..., 0] if self.channels == 1 else pixels

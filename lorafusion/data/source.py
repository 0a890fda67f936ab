"""A source: where images come from. It is read once; from then on the array that cache.py made of it is used."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

SPLITS = ("train", "test")


class Record(NamedTuple):
    """One image.

    image:  the bytes of an image file, or uint8 (H, W) grey or (H, W, 3) RGB.
    label:  its class; -1 = unlabelled.
    name:   where it lies, for messages.
    """

    image: bytes | np.ndarray
    label: int
    name: str


class Source(Protocol):
    """Nothing here may open a file for longer than the call: sources travel to other processes."""

    def splits(self) -> tuple[str, ...]:
        """Those of ``SPLITS`` that the source has; train is always one."""
        ...

    def fingerprint(self, split: str) -> str:
        """Changes when the images, their labels or their order do. Cheap: asked at every start."""
        ...

    def count(self, split: str) -> int:
        """How many records ``records`` gives from the first on."""
        ...

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        """In a fixed order, from record ``start`` on. Raises UserError naming the file that cannot be read."""
        ...

"""How much memory decoding one image takes, which images are refused for it, and how many are decoded at once.

A few kilobytes can announce an image of gigabytes. So the need is estimated from the header, before a pixel is decoded:

    up to BUDGET   decoded; all images that are decoded at one time stay within BUDGET together
    beyond it      a JPEG is reduced by 2, 4 or 8 while it is decoded, and needs that much less
    still beyond   decoded alone, and only if the file has a byte for every RATIO bytes of memory: a photograph's has,
                   a bomb's has not
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from PIL import Image, PngImagePlugin

from lorafusion.errors import UserError

BUDGET = 32 << 20  # bytes
RATIO = 256
MAX_PIXELS = 89_478_485  # Pillow's own limit, at which it only warns
PngImagePlugin.MAX_TEXT_MEMORY = 2 << 20  # all text in one image; Pillow would unpack 64 MiB

_SOURCE = {"1": 1, "L": 1, "P": 1}  # bytes a pixel in Pillow's memory, else 4
_READER = {"WEBP": 16, "TIFF": 4, "GIF": 8}  # bytes a pixel in the buffers of a format's reader


def need(image: Image.Image, mode: str, size: tuple[int, int]) -> int:
    """Bytes for decoding it, turning it upright and converting it to ``mode``, L or RGB. size: before ``reduce``."""
    source = _SOURCE.get(image.mode, 4)
    reader = _READER.get(image.format or "", 0)
    if "progressive" in image.info:
        reader = 6  # the coefficients of the whole image, 2 bytes for each of 3 colours
    result = max(source, 0 if image.mode == mode else _SOURCE.get(mode, 4))  # turned, or converted
    return size[0] * size[1] * reader + image.width * image.height * (source + result)


def reduce(image: Image.Image, mode: str, least: int) -> None:
    """Let a JPEG that needs more than the budget be decoded smaller, no side below ``least`` pixels."""
    if image.format == "JPEG" and need(image, mode, image.size) > BUDGET:
        image.draft(None, (least, least))  # pyright: ignore[reportArgumentType]


def check(needed: int, size: tuple[int, int], file_size: int, name: str) -> None:
    """Raises UserError where its header announces more than its file can mean."""
    announced = f"{name}: {size[0]} x {size[1]} pixels"
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"{announced}, more than {MAX_PIXELS:,}: refused")
    if needed > max(BUDGET, RATIO * file_size):
        file = f"in a file of {file_size:,} bytes, {needed >> 20} MiB to decode"
        raise UserError(f"{announced} {file}: refused as a bomb; if it is none, resize it")


class Gate:
    """Lets threads in as long as what they ask for stays within the budget together; who asks for more goes alone."""

    def __init__(self, budget: int):
        self.budget, self.used, self.changed = budget, 0, Condition()

    @contextmanager
    def __call__(self, amount: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.used == 0 or self.used + amount <= self.budget)
            self.used += amount
        try:
            yield
        finally:
            with self.changed:
                self.used -= amount
                self.changed.notify_all()


gate = Gate(BUDGET)

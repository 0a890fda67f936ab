"""One image file -> uint8 (C, R, R), by one stated rule.

Turned upright as its EXIF tag says, laid on white where it is transparent, converted to grey or RGB, its middle square
taken if that is asked for, then resized with the stated filter unless its size is already right. No padding.

A JPEG that would need more than 32 MiB (4 to 8 megapixels) is reduced by 2, 4 or 8 while it is decoded, never below
four times R, so that the stated filter still has the last word.
"""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from lorafusion.data import memory
from lorafusion.data.source import Record
from lorafusion.errors import UserError

FILTERS = {name: Image.Resampling[name.upper()] for name in ("lanczos", "bilinear", "bicubic", "box", "nearest")}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no format that Pillow hands to another program
_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112  # EXIF tag; 1 = upright
_ON_ITS_SIDE = (5, 6, 7, 8)
_DEEP = ("I", "F")  # more than 8 bits a channel: Pillow would clip them
_BAND = 1 << 18  # pixels converted at a time


@dataclass(frozen=True)
class Decoder:
    """resolution:  side R of the result, in pixels.
    channels:    1 grey or 3 RGB.
    filter:      lanczos, bilinear, bicubic, box or nearest.
    crop:        center = take the middle square of every image; None = an image that is not square is refused.

    Raises UserError for other values.
    """

    resolution: int
    channels: int
    filter: str = "lanczos"
    crop: str | None = None

    def __post_init__(self):
        if self.resolution < 1:
            raise UserError(f"data.resolution={self.resolution}: at least 1")
        if self.channels not in _MODES:
            raise UserError(f"data.channels={self.channels}: 1 (grey) or 3 (RGB)")
        if self.filter not in FILTERS:
            raise UserError(f"data.filter={self.filter}: one of {', '.join(FILTERS)}")
        if self.crop not in (None, "center"):
            raise UserError(f"data.crop={self.crop}: center or null")

    def __call__(self, record: Record) -> tuple[UInt8[np.ndarray, "C R R"], tuple[int, int]]:
        """The pixels, and the (width, height) that the image had. Raises UserError naming a file that is no image."""
        mode = _MODES[self.channels]
        try:
            image, size, needed = self._open(record, mode)
            with memory.gate(needed):
                pixels = self._pixels(image, mode, size)
                del image  # its memory is free before the next one is let in
            return pixels, size
        except UserError:
            raise
        except Exception as error:  # on a damaged file Pillow's readers raise nearly anything, SyntaxError included
            raise UserError(f"{record.name}: not a readable image ({_line(error)})") from error

    def _open(self, record: Record, mode: str) -> tuple[Image.Image, tuple[int, int], int]:
        """With its size and the bytes that decoding it takes, as its header says: no pixel is decoded."""
        given = record.image
        image = Image.fromarray(given) if isinstance(given, np.ndarray) else Image.open(io.BytesIO(given), "r", FORMATS)
        width, height = size = image.size
        if image.mode.startswith(_DEEP):
            raise UserError(f"{record.name}: more than 8 bits a channel (mode {image.mode}): convert it to 8 bits")
        if isinstance(given, bytes):
            memory.reduce(image, mode, 4 * self.resolution)
            memory.check(memory.need(image, mode, size), size, len(given), record.name)
        if width != height and self.crop is None:
            raise UserError(
                f"{record.name}: {width} x {height} pixels is not square; "
                "data.crop=center takes the middle square of every image"
            )
        return image, size, memory.need(image, mode, size)

    def _pixels(self, image: Image.Image, mode: str, size: tuple[int, int]) -> UInt8[np.ndarray, "C R R"]:
        reduced = round(size[0] / image.width)  # 1, or what a JPEG is reduced by
        orientation = image.getexif().get(_ORIENTATION, 1) if image.format else 1
        if orientation != 1:
            ImageOps.exif_transpose(image, in_place=True)
        width, height = size[::-1] if orientation in _ON_ITS_SIDE else size
        box = _middle(width, height, reduced)
        image = _converted(image, mode)
        side = (self.resolution, self.resolution)
        if image.size != side:
            image = image.resize(side, FILTERS[self.filter], box=box)
        return np.asarray(image).reshape(*side, self.channels).transpose(2, 0, 1)


def _middle(width: int, height: int, reduced: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the middle square, in pixels that are ``reduced`` of the image's."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left / reduced, top / reduced, (left + side) / reduced, (top + side) / reduced


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """In bands of rows, so that what stands between the two modes is small."""
    image.load()
    if image.mode == mode:
        return image
    width, height = image.size
    rows = max(1, _BAND // width)
    if rows >= height:
        return _on_white(image).convert(mode)
    result = Image.new(mode, image.size)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        result.paste(_on_white(band).convert(mode), (0, top))
    return result


def _on_white(image: Image.Image) -> Image.Image:
    if "a" not in image.mode.lower() and "transparency" not in image.info:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__

"""One image file -> uint8 (C, R, R), by one stated rule.

Turned upright as its EXIF tag says, laid on white where it is transparent, converted to grey or RGB, its middle square
taken if that is asked for, then resized with the stated filter unless its size is already right. No padding.
"""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from lorafusion.data.source import Record
from lorafusion.errors import UserError

FILTERS = {name: Image.Resampling[name.upper()] for name in ("lanczos", "bilinear", "bicubic", "box", "nearest")}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no format that Pillow hands to another program
MAX_PIXELS = 89_478_485  # Pillow's own limit, at which it only warns
_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112  # EXIF tag; 1 = upright
_DEEP = ("I", "F")  # more than 8 bits a channel: Pillow would clip them


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
        try:
            image = self._open(record)
            size = image.size
            image = _converted(image, _MODES[self.channels])
        except UserError:
            raise
        except Exception as error:  # on a damaged file Pillow's readers raise nearly anything, SyntaxError included
            raise UserError(f"{record.name}: not a readable image ({_line(error)})") from error
        side = (self.resolution, self.resolution)
        box = self._box(size, record.name)
        if size != side:
            image = image.resize(side, FILTERS[self.filter], box=box)
        return np.asarray(image).reshape(*side, self.channels).transpose(2, 0, 1), size

    def _open(self, record: Record) -> Image.Image:
        if isinstance(record.image, np.ndarray):
            return Image.fromarray(record.image)
        image = Image.open(io.BytesIO(record.image), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UserError(f"{record.name}: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}: refused")
        if image.mode.startswith(_DEEP):
            raise UserError(f"{record.name}: more than 8 bits a channel (mode {image.mode}): convert it to 8 bits")
        if image.getexif().get(_ORIENTATION, 1) != 1:
            ImageOps.exif_transpose(image, in_place=True)
        return image

    def _box(self, size: tuple[int, int], name: str) -> tuple[int, int, int, int]:
        (width, height), side = size, min(size)
        if width != height and self.crop is None:
            raise UserError(
                f"{name}: {width} x {height} pixels is not square; "
                "data.crop=center takes the middle square of every image"
            )
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        image.load()
        return image
    if "a" in image.mode.lower() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__

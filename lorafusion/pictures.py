"""Images as people see them: uint8 arrays, grids, PNG files."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lorafusion.files import replacing


def to_uint8(images: Float[Tensor, "B C H W"]) -> UInt8[np.ndarray, "B H W C"]:
    """[-1, 1] -> 0 .. 255, rounded."""
    scaled = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def grid(images: UInt8[np.ndarray, "B H W C"], columns: int | None = None, gap: int = 1) -> UInt8[np.ndarray, "_ _ C"]:
    """Row by row, with a white gap; ``columns`` defaults to a square."""
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for k, image in enumerate(images):
        y, x = (k // columns) * (height + gap), (k % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = image
    return canvas


def save_png(image: UInt8[np.ndarray, "H W C"], path: Path, scale: int = 1) -> None:
    """Write a grey or RGB image, whole or not at all; ``scale`` repeats pixels."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")

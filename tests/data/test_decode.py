"""The one rule that makes pixels of an image file, against numpy; and what is refused."""

import warnings

import numpy as np
import pytest
from PIL import Image

from lorafusion.data.decode import FILTERS, FORMATS, Decoder
from lorafusion.data.source import Record
from lorafusion.errors import UserError
from tests.data.images import encoded, noise


def decode(image: bytes | np.ndarray, *options, **named) -> np.ndarray:
    return Decoder(*options, **named)(Record(image, -1, "here.png"))[0]


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_the_right_size_is_not_touched(file_format, channels):
    pixels = noise(9, 9, channels)
    options = {"lossless": True} if file_format == "WEBP" else {}
    got = decode(encoded(pixels, file_format, **options), 9, channels)
    expected = pixels.reshape(9, 9, channels).transpose(2, 0, 1)
    # WebP has no grey of its own: it comes back through RGB and its luma
    np.testing.assert_allclose(
        got.astype(int), expected.astype(int), atol=1 if (file_format, channels) == ("WEBP", 1) else 0
    )
    assert got.dtype == np.uint8


def test_colour_becomes_luma_and_grey_becomes_three_equal_channels():
    colour, grey = noise(6, 6), noise(6, 6, 1)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    np.testing.assert_allclose(decode(encoded(colour), 6, 1)[0], luma, atol=1)
    np.testing.assert_array_equal(decode(encoded(grey), 6, 3), np.stack([grey] * 3))


def test_filters_against_closed_forms():
    pixels = noise(8, 8, 1)
    blocks = pixels.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(decode(pixels, 4, 1, "box")[0], blocks, atol=1)  # rounded once a direction
    np.testing.assert_array_equal(decode(pixels, 16, 1, "nearest")[0], pixels.repeat(2, 0).repeat(2, 1))
    triangle = np.array([1, 3, 3, 1]) / 8  # bilinear, halved: the tent has twice the width
    inner = triangle @ pixels[1:5, 1:5] @ triangle
    assert abs(int(decode(pixels, 4, 1, "bilinear")[0, 1, 1]) - inner) <= 1


def test_the_filters_differ_and_keep_a_constant():
    pixels, flat = noise(12, 12, 1), np.full((12, 12), 77, np.uint8)
    results = [decode(pixels, 7, 1, name) for name in FILTERS]
    assert len({result.tobytes() for result in results}) == len(FILTERS)
    for name in FILTERS:
        assert (decode(flat, 7, 1, name) == 77).all()
    np.testing.assert_array_equal(decode(pixels, 7, 1), decode(pixels, 7, 1, "lanczos"))


def test_no_padding():
    """A white image stays white up to its border when it grows."""
    assert (decode(np.full((28, 28), 255, np.uint8), 32, 1) == 255).all()


def test_center_crop_takes_the_middle_square():
    wide = noise(10, 4)
    np.testing.assert_array_equal(decode(wide, 4, 3, crop="center"), wide[:, 3:7].transpose(2, 0, 1))
    tall = noise(5, 8)
    np.testing.assert_array_equal(decode(tall, 5, 3, crop="center"), tall[1:6].transpose(2, 0, 1))
    np.testing.assert_array_equal(
        decode(wide, 2, 3, "box", "center"), decode(np.ascontiguousarray(wide[:, 3:7]), 2, 3, "box")
    )


def test_an_image_that_is_not_square_is_refused_by_name():
    with pytest.raises(UserError, match=r"^here.png: 10 x 4 pixels is not square; data.crop=center .*$"):
        decode(noise(10, 4), 4, 3)


def test_transparency_is_laid_on_white():
    pixels = np.concatenate([noise(4, 4), np.array([0, 255] * 8, np.uint8).reshape(4, 4, 1)], axis=2)
    expected = np.where(pixels[..., 3:] == 0, 255, pixels[..., :3])
    np.testing.assert_array_equal(decode(encoded(pixels), 4, 3), expected.transpose(2, 0, 1))
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    got = decode(encoded(palette, transparency=1), 2, 3)
    np.testing.assert_array_equal(got[:, 0], np.array([[10, 255], [20, 255], [30, 255]]))


def test_a_turned_photo_is_set_upright():
    pixels = noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row is the right-hand side
    got = decode(encoded(pixels, exif=exif), 8, 3)
    np.testing.assert_array_equal(got, np.rot90(pixels, -1).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable image"),
        (b"no image at all", "not a readable image"),
        (encoded(noise(40, 40))[:-1500], "not a readable image"),
        (encoded(noise(40, 40), "JPEG")[:400], "not a readable image"),
        (encoded(Image.fromarray(noise(8, 8, 1).astype(np.uint16) * 257)), "more than 8 bits a channel"),
        (encoded(Image.fromarray(noise(8, 8, 1).astype(np.float32)), "TIFF"), "more than 8 bits a channel"),
        (encoded(noise(8, 8), "EPS"), "not a readable image"),
        (encoded(Image.new("1", (12_000, 12_000))), "12000 x 12000 pixels, more than 89,478,485"),
        (encoded(Image.new("1", (20_000, 20_000))), "not a readable image .*decompression bomb"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "16 bits", "float", "eps", "bomb", "big bomb"],
)
def test_a_bad_file_is_one_line_with_its_name(data, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # as the cache does while it decodes
        with pytest.raises(UserError, match=rf"^here.png: {reason}[^\n]*$"):
            decode(data, 8, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about what it found
@pytest.mark.parametrize("file_format", [f for f in FORMATS if f != "PPM"])  # PPM is raw: nearly any bit is a pixel
def test_a_damaged_file_gives_pixels_or_one_line(file_format):
    """Never another exception, whatever byte was hit."""
    whole, rng, refusals = encoded(noise(16, 16), file_format), np.random.default_rng(0), []
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] ^= 1 << int(rng.integers(8))
        try:
            assert decode(bytes(data), 8, 3, crop="center").shape == (3, 8, 8)
        except UserError as error:
            refusals.append(str(error))
    assert refusals
    assert all(line.startswith("here.png: ") and "\n" not in line for line in refusals)


@pytest.mark.parametrize(
    ("options", "key"),
    [((0, 3), "resolution"), ((8, 2), "channels"), ((8, 3, "cubic"), "filter"), ((8, 3, "box", "left"), "crop")],
)
def test_wrong_options_name_their_key(options, key):
    with pytest.raises(UserError, match=rf"^data.{key}=[^\n]*$"):
        Decoder(*options)

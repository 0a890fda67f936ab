"""What a small file can make us take: measured in processes of their own, by the peak that the system saw."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lorafusion.data import edm_zip, memory
from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.data.source import Record
from lorafusion.errors import UserError
from tests.data.images import encoded, noise, write_zip

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from pathlib import Path
from lorafusion.data.cache import cached
from lorafusion.data.decode import Decoder
from lorafusion.data.folder import Folder
from lorafusion.errors import UserError
from tests.data.images import encoded, noise

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10

def made(path):
    return cached(Folder(path), "train", Decoder(8, 3, crop="center"), Path(sys.argv[1]), "set")

Path("warm").mkdir(exist_ok=True)
for form in ("png", "jpeg", "webp", "gif", "tiff"):
    (Path("warm") / f"1.{form}").write_bytes(encoded(noise(64, 64), form))
made(Path("warm"))
before = peak()
for path in sys.argv[2:]:
    try:
        made(Path(path))
        print("decoded")
    except UserError as error:
        print(error)
print(peak() - before)
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def grown(files: dict[str, bytes], place: Path, copies: int = 8) -> tuple[list[str], int]:
    """What decoding each file, some copies of it in a zip file, says, and the bytes that the process's peak grew by."""
    paths = [
        str(write_zip(place / f"{kind}.zip", {f"{k:02d}.{kind}.png": data for k in range(copies)}))
        for kind, data in files.items()
    ]
    source = f"import os\nos.cpu_count = lambda: 16\n{CHILD}"  # sixteen threads
    run = subprocess.run(
        [sys.executable, "-c", source, str(place / "cache"), *paths],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    *said, size = run.stdout.splitlines()
    return said, int(size)


def png(width: int, height: int, mode: int, bits: int, extra: bytes = b"") -> bytes:
    """An empty image of any size, compressed as far as deflate goes. mode: 0 grey, 2 RGB, 6 RGBA."""
    row = 1 + (width * bits * {0: 1, 2: 3, 6: 4}[mode] + 7) // 8
    packer, data = zlib.compressobj(9), b""
    for _ in range(height):
        data += packer.compress(bytes(row))
    chunks = [(b"IHDR", struct.pack(">2L5B", width, height, bits, mode, 0, 0, 0)), (b"IDAT", data + packer.flush())]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks[:1])) + extra + _chunk(chunks[1]) + _chunk((b"IEND", b""))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def texts() -> bytes:
    """A megabyte of text in each of sixty chunks of a kilobyte."""
    text = b"comment\0\0" + zlib.compress(bytes(1_000_000), 9)
    return b"".join(_chunk((b"zTXt", text)) for _ in range(60))


def flat(width: int, height: int, mode: str, form: str, **options) -> bytes:
    return encoded(Image.new(mode, (width, height)), form, **options)


BOMBS = {
    "grey": lambda: png(9400, 9400, 0, 1),
    "rgb": lambda: png(4000, 4000, 2, 8),
    "rgba": lambda: png(3000, 3000, 6, 8),
    "gif": lambda: flat(3000, 3000, "P", "GIF"),
    "webp": lambda: flat(2500, 2500, "RGB", "WEBP", lossless=True, method=0),
    "tiff": lambda: flat(4000, 4000, "RGB", "TIFF", compression="tiff_adobe_deflate"),
    "jpeg": lambda: flat(5000, 5000, "RGB", "JPEG", quality=1, optimize=True, progressive=True),
    "texts": lambda: png(8, 8, 0, 8, texts()),
}


@needs_proc
def test_bombs_are_refused_by_their_headers(tmp_path):
    bombs = {kind: make() for kind, make in BOMBS.items()}
    assert all(len(data) < 1 << 18 for data in bombs.values())
    said, size = grown(bombs, tmp_path, copies=16)
    for kind, line in zip(bombs, said, strict=True):
        assert f"00.{kind}.png: " in line
        assert "refused as a bomb" in line or kind == "texts"
    assert size < 50e6


@needs_proc
def test_images_just_below_the_bound_are_decoded_within_it(tmp_path):
    below = {
        "rgb": png(2000, 2000, 2, 8),
        "rgba": png(1900, 1900, 6, 8),
        "webp": flat(1180, 1180, "RGBA", "WEBP", lossless=True, method=0),
        "gif": flat(1500, 1500, "P", "GIF", transparency=0),
    }
    said, size = grown(below, tmp_path)
    assert said == ["decoded"] * 4
    assert size < 50e6


def photograph(width: int, height: int) -> Image.Image:
    """Clouds with grain: as many bytes as a camera's."""
    coarse = Image.fromarray(noise(width // 100, height // 100)).resize((width, height), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((width, height), 30).convert("RGB")
    return Image.blend(coarse, grain, 0.3)


@needs_proc
@pytest.mark.parametrize(("progressive", "most"), [(False, 50e6), (True, 250e6)])  # libjpeg keeps all coefficients
def test_photographs_of_24_megapixels_are_decoded(tmp_path, progressive, most):
    data = encoded(photograph(6000, 4000), "JPEG", quality=75, progressive=progressive)
    assert 2e6 < len(data) < 12e6
    said, size = grown({"photo": data}, tmp_path, copies=3)
    assert said == ["decoded"]
    assert size < most


def test_a_large_jpeg_is_nearly_what_full_decoding_gives():
    image = photograph(4000, 3000)
    data = encoded(image, "JPEG", quality=95)
    decoder = Decoder(64, 3, crop="center")
    assert memory.need(Image.open(io.BytesIO(data)), "RGB", (4000, 3000)) > memory.BUDGET
    got, size = decoder(Record(data, -1, "here"))
    whole = np.asarray(Image.open(io.BytesIO(data)))
    full, _ = decoder(Record(whole, -1, "here"))
    assert size == (4000, 3000)
    assert np.abs(got.astype(int) - full).max() <= 3


def test_conversion_in_bands_is_that_of_the_whole():
    colours = np.random.default_rng(0).integers(0, 256, (700, 600, 4), np.uint8)
    palette = Image.fromarray(colours[..., :3]).quantize(64)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=5)
    for image in (Image.fromarray(colours), Image.open(file), Image.fromarray(colours).convert("LA")):
        expected = image.convert("RGBA")
        for mode in ("L", "RGB"):
            whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), expected).convert(mode)
            got, _ = Decoder(600, {"L": 1, "RGB": 3}[mode], "nearest", "center")(
                Record(encoded(image, "PNG", **image.info), -1, "")
            )
            middle = np.asarray(whole)[50:650].reshape(600, 600, -1).transpose(2, 0, 1)
            np.testing.assert_array_equal(got, middle)


def test_the_gate_keeps_the_sum_within_the_budget():
    gate, seen, lock = memory.Gate(100), [], threading.Lock()
    inside = 0

    def work(amount: int) -> None:
        nonlocal inside
        for _ in range(20):
            with gate(amount):
                with lock:
                    inside += amount
                    seen.append(inside)
                with lock:
                    inside -= amount

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (30, 45, 60, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(seen) == 80
    assert set(seen) & {150}  # alone
    assert all(total <= 100 or total == 150 for total in seen)


def test_a_refusal_says_what_to_do():
    with pytest.raises(
        UserError, match=r"^x: 9400 x 9400 pixels in a file of [\d,]+ bytes, \d+ MiB to decode: refused"
    ):
        Decoder(8, 1)(Record(png(9400, 9400, 0, 1), -1, "x"))
    assert PngImagePlugin.MAX_TEXT_MEMORY == 2 << 20


def test_a_dataset_takes_little_memory_for_an_image(tmp_path):
    """The growth from 2,000 to 8,000 images, for each of them: what is kept, and at the peak."""
    sizes = {n: _memory_of(n, tmp_path) for n in (2000, 8000)}
    kept, peak = ((b - a) / 6000 for a, b in zip(sizes[2000], sizes[8000], strict=True))
    assert kept < 200  # its name, 82 bytes, and numbers
    assert peak < 400


def _memory_of(n: int, folder: Path) -> tuple[int, int]:
    path = folder / f"{n}.zip"
    listed = [[edm_zip.name(k), k % 10] for k in range(n)]
    with zipfile.ZipFile(path, "w") as archive:
        for name, _ in listed:
            archive.writestr(name, b"")
        archive.writestr("dataset.json", json.dumps({"labels": listed}))
    del listed
    tracemalloc.start()
    try:
        source = Folder(path)
        source.fingerprint("train")
        assert source.count("train") == n
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        '{"labels": [' + "[]," * 100_000 + "[]]}",
        '{"other": [' + "[]," * 100_000 + '[]], "labels": null}',
        '{"labels": [["1.png", ' + "[" * 100_000,
    ],
)
def test_nested_lists_in_dataset_json_are_not_built(tmp_path, text):
    path = write_zip(tmp_path / "1.zip", {"1.png": encoded(noise(8, 8)), "dataset.json": text.encode()})
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="not of the form"):
            Folder(path).count("train")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text) + 1_000_000
    finally:
        tracemalloc.stop()


def test_a_dataset_json_far_larger_than_its_images_is_refused(tmp_path):
    path = write_zip(tmp_path / "1.zip", {"1.png": encoded(noise(8, 8)), "dataset.json": b" " * (2 << 20)})
    with pytest.raises(UserError, match=r"dataset.json: 2,097,152 bytes to list 1 images"):
        Folder(path).count("train")

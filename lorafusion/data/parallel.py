"""Records decoded by several threads, in order, a bounded number ahead."""

import os
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lorafusion.data.decode import Decoder
from lorafusion.data.source import Record

CHUNK, _CHUNK_BYTES = 32, 1 << 18  # images that a thread decodes at a time, or bytes of their files
_AHEAD, _AHEAD_BYTES = 4, 1 << 24  # chunks for each thread that are read ahead, or bytes of their files


class Decoded(NamedTuple):
    """size: (width, height) that the image had. name: where it lies."""

    pixels: UInt8[np.ndarray, "C R R"]
    label: int
    size: tuple[int, int]
    name: str


def decoded(records: Iterator[Record], decoder: Decoder) -> Generator[Decoded, None, None]:
    """Raises UserError naming the first image that cannot be decoded."""
    threads = min(16, os.cpu_count() or 1)
    waiting: deque[tuple[int, Future[list[Decoded]]]] = deque()  # bytes of their files, what comes of them
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the decoder refuses such an image by name
        for chunk in _chunks(records):
            waiting.append((_bytes(chunk), pool.submit(_all, chunk, decoder)))
            del chunk
            while len(waiting) >= _AHEAD * threads or sum(size for size, _ in waiting) >= _AHEAD_BYTES:
                yield from waiting.popleft()[1].result()
        while waiting:
            yield from waiting.popleft()[1].result()


def _all(chunk: list[Record], decoder: Decoder) -> list[Decoded]:
    done = []
    while chunk:  # a file is let go when it is decoded
        record = chunk.pop(0)
        pixels, size = decoder(record)
        done.append(Decoded(pixels, record.label, size, record.name))
    return done


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK or _bytes(chunk) >= _CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _bytes(chunk: list[Record]) -> int:
    return sum(r.image.nbytes if isinstance(r.image, np.ndarray) else len(r.image) for r in chunk)

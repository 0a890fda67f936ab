"""Decode a source once into a uint8 array on disk, which every later run maps into memory.

    <cache_dir>/<name>-<split>-32px-1ch-<key>/    images.npy  uint8 (N, C, R, R)
                                                  labels.npy  int64 (N,), -1 = unlabelled
                                                  meta.json   what it was made of, and the sha256 of its contents

The key is a hash of the source's fingerprint and of everything that decides the pixels, so a changed source or option
is another folder. The folder is filled under a temporary name and renamed when it is whole and on the disk; a file
lock makes a second process wait and then use what the first one made. A killed process leaves no lock (the kernel
frees it) and at most the temporary folder, which the next one removes.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from jaxtyping import Int64, UInt8
from PIL import Image

from lorafusion.data.decode import Decoder
from lorafusion.data.progress import Progress
from lorafusion.data.source import Record, Source
from lorafusion.errors import UserError

log = logging.getLogger(__name__)

_FORMAT = 1  # raise it when the same options come to mean other pixels
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError)
_CHUNK = 32  # images a thread decodes at a time


@dataclass(frozen=True)
class Cached:
    """A decoded split. It travels to other processes as its path, and is mapped anew there."""

    folder: Path
    images: UInt8[np.ndarray, "N C R R"]
    labels: Int64[np.ndarray, "N"]
    meta: dict[str, Any]

    def __reduce__(self):
        return read, (self.folder,)


def read(folder: Path) -> Cached:
    """Map a finished folder. Raises one of ``_DAMAGE`` where it is missing or damaged."""
    meta = json.loads((folder / "meta.json").read_text())
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy")
    shape = (meta["count"], meta["channels"], meta["resolution"], meta["resolution"])
    if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1] or labels.dtype != np.int64:
        raise ValueError(f"{folder} does not hold what its meta.json says")
    return Cached(folder, images, labels, meta)


def cached(source: Source, split: str, decoder: Decoder, cache_dir: Path, name: str) -> Cached:
    """The decoded split, made now if no run has made it yet.

    Raises UserError for a source that cannot be read, a folder that cannot be written, a disk that is too small.
    """
    meta = {"format": _FORMAT, "split": split, "fingerprint": source.fingerprint(split), **asdict(decoder)}
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]
    short = re.sub(r"[^\w.-]", "_", name)
    folder = cache_dir.expanduser() / f"{short}-{split}-{decoder.resolution}px-{decoder.channels}ch-{key}"
    found = _whole(folder)
    if found is None:
        try:
            with _locked(folder):
                found = _whole(folder) or _build(source, split, decoder, folder, {"name": name, **meta})
        except OSError as error:
            raise UserError(f"{folder} could not be written: {error}; paths.data_dir=... chooses a place") from error
    return found


def _whole(folder: Path) -> Cached | None:
    """None where it is not there, or damaged."""
    try:
        return read(folder)
    except _DAMAGE:
        return None


def _locked(folder: Path) -> AcquireReturnProxy:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        log.info("waiting for another process that is decoding %s", folder.name)
        return lock.acquire(timeout=-1)


def _build(source: Source, split: str, decoder: Decoder, folder: Path, meta: dict[str, Any]) -> Cached:
    if folder.exists():
        log.warning("%s is damaged: decoding again", folder)
    count = source.count(split)
    if count == 0:
        raise UserError(f"{meta['name']}: no {split} images")
    partial = folder.with_name(f"{folder.name}.partial")  # one name is enough: the lock is ours
    for stale in (partial, folder):
        shutil.rmtree(stale, ignore_errors=True)
    _check_space(count * (decoder.channels * decoder.resolution**2 + 8), folder)
    try:
        partial.mkdir()
        with Progress(f"decoding {meta['name']} {split}", count) as progress:
            decoded = progress.over(_decoded(source.records(split), decoder))
            labels, digest = _write_images(decoded, partial / "images.npy", count, decoder)
        digest.update(labels.tobytes())
        with (partial / "labels.npy").open("wb") as file:
            np.save(file, labels)
            _sync(file)
        with (partial / "meta.json").open("wb") as file:
            file.write(json.dumps({**meta, "count": count, "sha256": digest.hexdigest()}, indent=1).encode())
            _sync(file)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return read(folder)


def _check_space(need: int, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < need:
        raise UserError(
            f"{folder.parent}: {need / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; paths.data_dir=... chooses a place"
        )


def _decoded(records: Iterator[Record], decoder: Decoder) -> Iterator[tuple[UInt8[np.ndarray, "C R R"], Record]]:
    """In order, by several threads (Pillow decodes outside the interpreter's lock), a bounded number at a time."""
    first: tuple[tuple[int, int], str] | None = None
    threads = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the decoder refuses such an image by name
        while window := list(islice(records, 4 * threads * _CHUNK)):
            chunks = [window[i : i + _CHUNK] for i in range(0, len(window), _CHUNK)]
            results = pool.map(lambda chunk: [decoder(record) for record in chunk], chunks)
            pairs = (pair for chunk in results for pair in chunk)
            for record, (pixels, size) in zip(window, pairs, strict=True):
                first = first or (size, record.name)
                if size != first[0] and decoder.crop is None:
                    (w, h), (w0, h0) = size, first[0]
                    raise UserError(
                        f"{record.name}: {w} x {h} pixels where {first[1]} has {w0} x {h0}; "
                        "data.crop=center accepts mixed sizes"
                    )
                yield pixels, record


def _write_images(
    decoded: Iterator[tuple[UInt8[np.ndarray, "C R R"], Record]], path: Path, count: int, decoder: Decoder
) -> tuple[Int64[np.ndarray, "N"], Any]:
    """Returns labels and digest. Appends: through a memory map, a full disk ends the process with SIGBUS."""
    shape = (count, decoder.channels, decoder.resolution, decoder.resolution)
    labels, digest = [], hashlib.sha256()
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for pixels, record in decoded:
            data = pixels.tobytes()
            file.write(data)
            digest.update(data)
            labels.append(record.label)
        if len(labels) != count:
            raise UserError(f"{path.parent.stem}: {len(labels)} images read where {count} were announced")
        _sync(file)
    return np.asarray(labels, np.int64), digest


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())

"""Decode a source once into a uint8 array on disk, which every later run maps into memory.

    <cache_dir>/<name>-<split>-32px-1ch-<key>/    images.npy  uint8 (N, C, R, R)
                                                  labels.npy  int64 (N,), -1 = unlabelled
                                                  meta.json   what it was made of, and the sha256 of its contents

The key is a hash of the source's fingerprint and of everything that decides the pixels, so a changed source or option
is another folder. The folder is filled under a temporary name and renamed when it is whole and on the disk; a file
lock makes a second process wait and then use what the first one made. A killed process leaves no lock (the kernel
frees it) and at most the temporary folder, in which the next one goes on with the first shard that is missing.
"""

import hashlib
import json
import logging
import re
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from jaxtyping import Int64, UInt8

from lorafusion.data.decode import Decoder
from lorafusion.data.parallel import decoded
from lorafusion.data.partial import STATE, Partial
from lorafusion.data.source import Source
from lorafusion.errors import UserError
from lorafusion.progress import bar

log = logging.getLogger(__name__)

_FORMAT = 2  # raise it when the same options come to mean other pixels
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError)


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
        shutil.rmtree(folder, ignore_errors=True)
    count = source.count(split)
    if count == 0:
        raise UserError(f"{meta['name']}: no {split} images")
    path = folder.with_name(f"{folder.name}.partial")  # one name is enough: the lock is ours
    shape = (count, decoder.channels, decoder.resolution, decoder.resolution)
    try:
        with closing(Partial(path, shape)) as partial:
            if partial.done:
                log.info("decoding %s %s goes on at image %d of %d", meta["name"], split, partial.done, count)
            _check_space((count - partial.done) * (partial.each + 8), folder)
            _fill(partial, source, split, decoder, f"decoding {meta['name']} {split}")
            partial.finish(meta)
        path.rename(folder)
        (folder / STATE).unlink()
    except Exception:  # a bad image, a full disk: nothing partial stays
        shutil.rmtree(path, ignore_errors=True)
        raise
    except BaseException:  # interrupted: what is surely on the disk does
        if not (path / STATE).exists():
            shutil.rmtree(path, ignore_errors=True)
        raise
    return read(folder)


def _check_space(need: int, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < need:
        raise UserError(
            f"{folder.parent}: {need / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; paths.data_dir=... chooses a place"
        )


def _fill(partial: Partial, source: Source, split: str, decoder: Decoder, title: str) -> None:
    images = decoded(source.records(split, partial.done), decoder)
    with bar(title, "images") as report, closing(images):
        for image in images:
            partial.append(*image)
            first = partial.state.size or [*image.size]
            if [*image.size] != first and decoder.crop is None:
                (w, h), (w0, h0) = image.size, first
                raise UserError(
                    f"{image.name}: {w} x {h} pixels where {partial.state.name} has {w0} x {h0}; "
                    "data.crop=center accepts mixed sizes"
                )
            report(partial.done, partial.shape[0])

"""Your own images: a folder or a zip file.

    cat/1.png, dog/7.png            the class is the first folder that not all images share, numbered in sorted order:
                                    as torchvision's ImageFolder and NVlabs' dataset tools number them
    1.png, 2.png                    plain images, unlabelled
    dataset.json                    at the top: {"labels": [["00000/img00000000.png", 6], ...]} or {"labels": null};
                                    then folders mean nothing (the layout of NVlabs' StyleGAN and EDM tools)
    train/..., test/... or val/...  each of the above; without them everything is the training split

Order is by name. Files that are no images by their ending are passed over.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from sys import intern

import numpy as np
from jaxtyping import Int64

from lorafusion.data import dataset_json
from lorafusion.data.archive import Archive, find, open_archive
from lorafusion.data.source import Record
from lorafusion.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_LIST = "dataset.json"
_SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}


@dataclass(frozen=True)
class Split:
    """files:    numbers of its images in the archive.
    labels:   their classes, -1 = unlabelled.
    classes:  names of the class folders, in the order of their numbers; none where the labels do not come from folders.
    depth:    folders that all images share, above the class folders.
    """

    files: Int64[np.ndarray, "N"]
    labels: Int64[np.ndarray, "N"]
    classes: tuple[str, ...] = ()
    depth: int = 0


class Folder:
    """path:    a folder or a zip file. Raises UserError, when first used, where it is none, or is not sound.
    wanted:  what to say where no path was given.
    """

    def __init__(
        self,
        path: str | Path | None,
        wanted: str = "data=folder needs data.path=... : a folder of images, or a zip file of them",
    ):
        self._path, self.wanted = path, wanted

    @cached_property
    def path(self) -> Path:
        if self._path is None:
            raise UserError(self.wanted)
        return Path(self._path).expanduser()

    @cached_property
    def archive(self) -> Archive:
        return open_archive(self.path)

    @cached_property
    def roots(self) -> dict[str, str]:
        """split -> the beginning of its names."""
        tops = {name.partition("/")[0] for name in self.archive.names if name.lower().endswith(ENDINGS)}
        if not tops:
            raise UserError(f"{self.path}: no images in it (none ends in {' '.join(ENDINGS)})")
        if find(self.archive.names, _LIST) is not None or "train" not in tops or not tops <= set(_SPLIT_FOLDERS):
            return {"train": ""}
        tests = sorted(tops - {"train"})
        if len(tests) > 1:
            raise UserError(f"{self.path}: {' and '.join(tests)} are both there; keep one beside train")
        return {"train": "train/"} | ({"test": f"{tests[0]}/"} if tests else {})

    def splits(self) -> tuple[str, ...]:
        return tuple(self.roots)

    @cached_property
    def found(self) -> dict[str, Split]:
        train = self._split(self.roots["train"], None)
        others = {split: root for split, root in self.roots.items() if split != "train"}
        return {"train": train} | {split: self._split(root, train) for split, root in others.items()}

    def fingerprint(self, split: str) -> str:
        digest, files = hashlib.sha256(), self.found[split].files
        for k in files:
            digest.update(f"{self.archive.names[k]}\0".encode("utf-8", "surrogateescape"))
        digest.update(self.archive.stamps[files].tobytes())
        digest.update(self.found[split].labels.tobytes())
        return digest.hexdigest()

    def count(self, split: str) -> int:
        return len(self.found[split].files)

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        files, labels = self.found[split].files[start:], self.found[split].labels[start:]
        for k, label, data in zip(files, labels, self.archive.read(files), strict=True):
            yield Record(data, int(label), str(self.path / self.archive.names[k]))

    def _split(self, root: str, train: Split | None) -> Split:
        """train: where this is the other split, so that its classes are numbered alike."""
        names = self.archive.names
        images = (k for k, name in enumerate(names) if name.startswith(root) and name.lower().endswith(ENDINGS))
        files = np.fromiter(images, np.int64)
        at = find(names, root + _LIST)
        if at is None:
            return self._by_folder(root, files, train)
        where, size = self.path / root / _LIST, int(self.archive.stamps[at, 0])
        if size > (1 << 20) + (len(files) << 10):
            raise UserError(f"{where}: {size:,} bytes to list {len(files):,} images, more than 1 KiB for each: refused")
        listed = dataset_json.labels(next(self.archive.read([at])), [names[k][len(root) :] for k in files], where)
        return Split(files, listed)

    def _by_folder(self, root: str, files: Int64[np.ndarray, "N"], train: Split | None) -> Split:
        folders = [intern(self.archive.names[k][len(root) :].rpartition("/")[0]) for k in files]
        paths = {folder: tuple(folder.split("/")) for folder in set(folders)}
        if paths.keys() == {""}:
            return Split(files, np.full(len(files), -1))
        depth = (len(_shared([*paths.values()])) if len(paths) > 1 else 0) if train is None else train.depth
        plain = next((f for f, path in paths.items() if not f or len(path) <= depth), None)
        if plain is not None:
            raise UserError(
                f"{self._first(files, folders, plain)} lies beside folders of images: is it of a class or not?"
            )
        classes = tuple(sorted({path[depth] for path in paths.values()})) if train is None else train.classes
        numbers = {name: number for number, name in enumerate(classes)}
        if unknown := next((f for f, path in paths.items() if path[depth] not in numbers), None):
            first, name = self._first(files, folders, unknown), paths[unknown][depth]
            raise UserError(f"{first}: class {name!r} is not among the training images'")
        number_of = {folder: numbers[path[depth]] for folder, path in paths.items()}
        return Split(files, np.fromiter((number_of[folder] for folder in folders), np.int64), classes, depth)

    def _first(self, files: Int64[np.ndarray, "N"], folders: list[str], folder: str) -> Path:
        """The first image of a folder."""
        return self.path / self.archive.names[files[folders.index(folder)]]


def _shared(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    """What all begin with."""
    first, last = min(paths), max(paths)
    return first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]

"""Your own images: a folder or a zip file.

    cat/1.png, dog/7.png            the class is the folder an image lies in, numbered in sorted order
    1.png, 2.png                    plain images, unlabelled
    dataset.json                    at the top: {"labels": [["00000/img00000000.png", 6], ...]} or {"labels": null};
                                    then folders mean nothing (the layout of NVlabs' StyleGAN and EDM tools)
    train/..., test/... or val/...  each of the above; without them everything is the training split

Order is by name. Files that are no images by their ending are passed over.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from lorafusion.data.archive import Archive, open_archive
from lorafusion.data.source import Record
from lorafusion.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_LIST = "dataset.json"
_SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}


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
        images = [name for name in self.archive.files if name.lower().endswith(ENDINGS)]
        if not images:
            raise UserError(f"{self.path}: no images in it (none ends in {' '.join(ENDINGS)})")
        tops = {name.split("/")[0] for name in images}
        if _LIST in self.archive.files or "train" not in tops or not tops <= set(_SPLIT_FOLDERS):
            return {"train": ""}
        tests = sorted(tops - {"train"})
        if len(tests) > 1:
            raise UserError(f"{self.path}: {' and '.join(tests)} are both there; keep one beside train")
        return {"train": "train/"} | ({"test": f"{tests[0]}/"} if tests else {})

    def splits(self) -> tuple[str, ...]:
        return tuple(self.roots)

    @cached_property
    def labels(self) -> dict[str, dict[str, int]]:
        """split -> name -> label."""
        found = {split: self._labels(root) for split, root in self.roots.items()}
        classes = sorted({label for label in found["train"].values() if isinstance(label, str)})
        numbers = {name: number for number, name in enumerate(classes)}
        for labels in found.values():
            for name, label in labels.items():
                if isinstance(label, str) and label not in numbers:
                    raise UserError(f"{self.path / name}: class {label!r} is not among the training images'")
        return {
            split: {n: numbers[label] if isinstance(label, str) else label for n, label in labels.items()}
            for split, labels in found.items()
        }

    def fingerprint(self, split: str) -> str:
        digest = hashlib.sha256()
        for name, label in self.labels[split].items():
            digest.update(f"{name}\0{self.archive.files[name]}\0{label}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def count(self, split: str) -> int:
        return len(self.labels[split])

    def records(self, split: str) -> Iterator[Record]:
        labels = self.labels[split]
        for (name, label), data in zip(labels.items(), self.archive.read(labels), strict=True):
            yield Record(data, label, str(self.path / name))

    def _labels(self, root: str) -> dict[str, int | str]:
        """Numbers as dataset.json has them, or else the names of classes."""
        names = [n for n in self.archive.files if n.startswith(root) and n.lower().endswith(ENDINGS)]
        if root + _LIST in self.archive.files:
            return self._listed(root, names)
        folders: dict[str, int | str] = {
            name: str(PurePosixPath(name).parent.relative_to(root or ".")) for name in names
        }
        plain = [name for name, folder in folders.items() if folder == "."]
        if len(plain) == len(names):
            return dict.fromkeys(names, -1)
        if plain:
            raise UserError(f"{self.path / plain[0]} lies beside folders of images: is it of a class or not?")
        return folders

    def _listed(self, root: str, names: list[str]) -> dict[str, int | str]:
        where = self.path / root / _LIST
        listed = _read_labels(next(self.archive.read([root + _LIST])), where)
        if listed is None:
            return dict.fromkeys(names, -1)
        known = set(names)
        for name in listed:
            if root + name not in known:
                raise UserError(f"{where}: names {name!r}, which is not among the images")
        if len(listed) < len(names):
            missing = next(name for name in names if name[len(root) :] not in listed)
            raise UserError(f"{where}: {len(listed)} labels for {len(names)} images; {missing!r} has none")
        return {name: listed[name[len(root) :]] for name in names}


def _read_labels(data: bytes, where: Path) -> dict[str, int] | None:
    """name -> label as dataset.json lists them; None where it has none. Raises UserError for anything else."""
    try:
        listed = json.loads(data)["labels"]
        if listed is None:
            return None
        labels = {name.replace("\\", "/"): label for name, label in listed}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{where}: not of the form {{"labels": [["name.png", 3], ...]}} ({error!r})') from error
    if len(labels) < len(listed):
        raise UserError(f"{where}: names an image twice")
    for name, label in labels.items():
        if type(label) is not int or not 0 <= label < 1 << 31:
            raise UserError(f"{where}: label {label!r} of {name!r} is not a class number, 0 or more")
    return labels

"""Datasets as the Hugging Face hub lays them out: parquet files with a column of encoded images and one of labels.

With a path they are read from local files, train-00000-of-00005.parquet and so on, and nothing is asked of a network.
Without one, the package `datasets` downloads them when they are decoded for the first time, and only then.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count, islice
from pathlib import Path
from types import ModuleType
from typing import Any

from lorafusion.data.source import SPLITS, Record
from lorafusion.errors import UserError

IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")  # the names in use
_NAMES = {"train": ("train",), "test": ("validation", "test")}  # of the files; beside one for validation, one for test
# often has no labels
_ROWS = 32  # read at a time
_BUFFER = 1 << 20  # bytes of a column read at a time; without it a row group's column, which may be the whole file


class Hub:
    """repo:      owner/name on the hub.
    path:      a folder of its parquet files; None = the hub.
    revision:  a branch, tag or commit of ``repo``.
    image:     column of the images; None = the one of ``IMAGES`` that is there.
    label:     column of the labels; None = the one of ``LABELS`` that is there, or else unlabelled.
    """

    def __init__(
        self,
        repo: str,
        path: str | Path | None = None,
        revision: str = "main",
        image: str | None = None,
        label: str | None = None,
    ):
        self.repo, self.revision, self.image, self.label = repo, revision, image, label
        self.path = None if path is None else Path(path).expanduser()

    def splits(self) -> tuple[str, ...]:
        """Of local files, those that are there."""
        if self.path is None or not self.path.is_dir():
            return SPLITS
        return ("train", "test") if any(self._found(name) for name in _NAMES["test"]) else ("train",)

    def fingerprint(self, split: str) -> str:
        """Of local files: names, sizes and times of change."""
        columns = f"{self.image} {self.label}"
        if self.path is None:
            return f"{self.repo}@{self.revision} {columns}"
        stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self._files(split)]
        return hashlib.sha256(f"{stamps} {columns}".encode()).hexdigest()

    def count(self, split: str) -> int:
        if self.path is None:
            return len(self._downloaded(split))
        total = 0
        for file in self._files(split):
            with _named(file), _pyarrow().ParquetFile(file) as parquet:
                total += parquet.metadata.num_rows
        return total

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        if self.path is None:
            rows = self._downloaded(split)
            tables = rows.select(range(start, len(rows))).with_format("arrow").iter(batch_size=_ROWS)
            yield from self._rows(tables, f"{self.repo} {split}", start)
            return
        for file in self._files(split):
            with _named(file), _pyarrow().ParquetFile(file, buffer_size=_BUFFER) as parquet:
                rows = parquet.metadata.num_rows
                if start < rows:
                    columns = self._columns(parquet.schema_arrow.names, str(file))
                    groups, before = _groups_from(parquet, start)
                    batches = parquet.iter_batches(_ROWS, groups, [name for name in columns if name], use_threads=False)
                    yield from islice(self._rows(batches, str(file), before), start - before, None)
                start = max(0, start - rows)

    def _rows(self, batches: Iterator[Any], where: str, first: int) -> Iterator[Record]:
        """Arrow tables or batches of rows -> records."""
        names = (f"{where}: row {row}" for row in count(first))
        for batch in batches:
            image, label = self._columns(batch.schema.names, where)
            labels = batch.column(label).to_pylist() if label else [-1] * batch.num_rows
            for value, number in zip(batch.column(image).to_pylist(), labels, strict=True):
                name = next(names)
                yield Record(_encoded(value, name), -1 if number is None else number, name)

    def _columns(self, names: list[str], where: str) -> tuple[str, str | None]:
        image = self.image or next((name for name in IMAGES if name in names), None)
        label = self.label or next((name for name in LABELS if name in names), None)
        for name in (image, label or image):
            if name not in names:
                raise UserError(f"{where}: no column {name or ' or '.join(IMAGES)}; it has {', '.join(names)}")
        assert image is not None  # or it would not be among the names
        return image, label

    def _files(self, split: str) -> list[Path]:
        assert self.path is not None
        if not self.path.is_dir():
            raise UserError(f"data.path={self.path}: no such folder")
        name, files = next(((n, found) for n in _NAMES[split] if (found := self._found(n))), (split, []))
        if not files:
            raise UserError(f"{self.path}: no {split}-*.parquet in it, as {self.repo} on the hub has")
        names = {file.name for file in files}
        if shards := re.fullmatch(rf"{name}-\d{{5}}-of-(\d{{5}})(-\w+)?\.parquet", files[0].name):
            for k in range(int(shards[1])):
                shard = f"{name}-{k:05}-of-{shards[1]}"
                if not any(n == f"{shard}.parquet" or n.startswith(f"{shard}-") for n in names):
                    raise UserError(f"{self.path}: {shard}.parquet is missing")
        return files

    def _found(self, name: str) -> list[Path]:
        assert self.path is not None
        return sorted(self.path.glob(f"{name}-*.parquet")) or sorted(self.path.glob(f"{name}.parquet"))

    @cache  # noqa: B019  a source lives as long as its run
    def _downloaded(self, split: str) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError(f"{self.repo} needs the package datasets: pip install lorafusion[hub]") from error
        try:
            return datasets.load_dataset(self.repo, split=split, revision=self.revision)
        except Exception as error:  # the package, its file systems and its http client each have their own
            raise UserError(
                f"{self.repo} could not be had from the Hugging Face hub ({_line(error)}); "
                "data.path=... reads a folder of its parquet files instead"
            ) from error


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Failures of the reader, as one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's own are among these
        raise UserError(f"{file}: not a readable parquet file ({_line(error)})") from error


def _groups_from(parquet: Any, start: int) -> tuple[list[int], int]:
    """The row groups that hold row ``start`` and all behind it, and the number of rows before them."""
    before = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if before + rows > start:
            return [*range(group, parquet.num_row_groups)], before
        before += rows
    return [], before


def _pyarrow() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("parquet files need the package pyarrow: pip install lorafusion[hub]") from error
    return pyarrow.parquet


def _encoded(value: Any, where: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise UserError(f"{where}: no image file in it, only {value!r:.80}")
    return data


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__

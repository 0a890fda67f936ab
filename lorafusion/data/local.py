"""A data set at a path, in whichever of our forms it lies there.

    a folder with *.parquet in it, or in its data/   as the Hugging Face hub has them: hub.py
    a file that ends in .npz                         arrays.py
    any other folder, or a zip file                  folder.py

Without a path it is downloaded from the hub, where it has a repository there.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from lorafusion.data.arrays import Arrays
from lorafusion.data.folder import Folder
from lorafusion.data.hub import Hub
from lorafusion.data.source import Record, Source
from lorafusion.errors import UserError


class Local:
    """path:      of the images. Raises UserError, when first used, where there are none.
    wanted:    what to say where no path was given, or nothing is there.
    repo:      owner/name on the hub; None = nothing is downloaded.
    revision:  a branch, tag or commit of ``repo``.
    """

    def __init__(self, path: str | Path | None, wanted: str = "", repo: str | None = None, revision: str = "main"):
        self.path, self.wanted, self.repo, self.revision = path, wanted, repo, revision

    @cached_property
    def source(self) -> Source:
        if self.path is None and self.repo is None:
            raise UserError(self.wanted)
        if self.path is None:
            return Hub(str(self.repo), None, self.revision)
        path = Path(self.path).expanduser()
        if not path.exists():
            raise UserError(f"data.path={path}: no such folder or file" + (f"; {self.wanted}" if self.wanted else ""))
        if path.suffix == ".npz":
            return Arrays(path)
        for folder in (path, path / "data"):
            if folder.is_dir() and next(folder.glob("*.parquet"), None):
                return Hub(self.repo or path.name, folder)
        return Folder(path)

    def splits(self) -> tuple[str, ...]:
        return self.source.splits()

    def fingerprint(self, split: str) -> str:
        return self.source.fingerprint(split)

    def count(self, split: str) -> int:
        return self.source.count(split)

    def records(self, split: str, start: int = 0) -> Iterator[Record]:
        return self.source.records(split, start)

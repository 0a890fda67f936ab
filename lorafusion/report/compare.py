"""From the folders of runs to the three files of a report."""

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from lorafusion.files import write_text
from lorafusion.progress import bar, counted
from lorafusion.report.groups import Group, grouped
from lorafusion.report.markdown import markdown
from lorafusion.report.numbers_file import csv_text
from lorafusion.report.page import html
from lorafusion.report.run import load
from lorafusion.report.table import table


def read(folders: Sequence[Path]) -> list[Group]:
    with bar("reading runs", "runs") as progress:
        pairs = zip(folders, names(folders), strict=True)
        return grouped([load(folder, name) for folder, name in counted(pairs, len(folders), progress)])


def write(groups: Sequence[Group], out: Path) -> None:
    """report.html, report.md, report.csv; what pictures cannot be read is known after the first."""
    compared = table(groups)
    write_text(out / "report.html", html(groups, compared))
    write_text(out / "report.md", markdown(groups, compared))
    write_text(out / "report.csv", csv_text(groups))


def names(folders: Sequence[Path]) -> list[str]:
    """Folders below the one that holds them all; of a single one, its own name."""
    if len(folders) == 1:
        return [folders[0].name]
    above = Path(commonpath(folders))
    return [str(folder.relative_to(above)) for folder in folders]

"""report.csv: a row for each run, with every column and all digits."""

import csv
import io
from collections.abc import Sequence

from lorafusion.report.columns import columns
from lorafusion.report.groups import Group

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by spreadsheets


def csv_text(groups: Sequence[Group]) -> str:
    compared = columns(groups)
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["folder", "configuration", "seed", *(column.key for column in compared), "error"])
    for group in groups:
        for run in group.runs:
            values = [run.seed, *(column.of(run) for column in compared)]
            cells = [run.name, group.label, *values, run.state.error]
            writer.writerow([plain(cell) if isinstance(cell, str) else cell for cell in cells])
    return target.getvalue()


def plain(text: str) -> str:
    """One line that no spreadsheet takes for a formula."""
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(FORMULA) else text

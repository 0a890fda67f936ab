"""The table of runs: a row for each group of repeats, one for each run below it, written out and marked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lorafusion.report.columns import Column, columns
from lorafusion.report.groups import Group
from lorafusion.report.numbers import NONE, decimals, duration, fixed, short, whole
from lorafusion.report.rivals import best, judged, mean_of
from lorafusion.report.run import Run


@dataclass(frozen=True)
class Cell:
    """text:   as it is shown. sort: what it is sorted by, None last.
    spread: of a mean, written with as many places. n: over how many, where that is not all.
    best:   of its column, among what may be compared.
    """

    text: str
    sort: float | str | None = None
    spread: str = ""
    n: int | None = None
    best: bool = False


@dataclass
class Row:
    """subject: of a row of the table a group, of a row below it a run; cells in the order of the columns."""

    subject: Group | Run
    cells: list[Cell]
    below: list["Row"] = field(default_factory=list)


@dataclass
class Table:
    """columns:   those shown. same: (title, text) of columns that are the same in all runs, and so not shown."""

    columns: list[Column]
    rows: list[Row]
    same: list[tuple[str, str]]

    def has_spread(self, column: Column) -> bool:
        k = self.columns.index(column)
        return any(row.cells[k].spread or row.cells[k].n for row in self.rows)

    def judged(self, column: Column) -> str:
        """On how many images, where that is known of any: '' of a loss."""
        found = dict.fromkeys(judged(column, row.subject) for row in self.rows if isinstance(row.subject, Group))
        known = [text for text in found if text and text != "N unknown"]
        return "" if not known or not column.metric else known[0] if len(known) == 1 else "N differs"


def table(groups: Sequence[Group]) -> Table:
    shown, same = [], []
    for column in columns(groups):
        values = {column.of(run) for group in groups for run in group.runs}
        if values <= {None}:
            continue
        if not column.always and len(values) == 1:
            same.append((column.title, str(next(iter(values)))))
        else:
            shown.append(column)
    seeds = Column("seed", "seeds", lambda run: run.seed, "whole")
    shown.insert([column.key for column in shown].index("state"), seeds)
    rows = [Row(g, [], [Row(run, []) for run in g.runs]) for g in groups]
    for column in shown:
        _fill(column, groups, rows)
    return Table(shown, rows, same)


def _fill(column: Column, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    write, places = _writer(column, groups)
    marked = best(column, groups)
    for row, group in zip(rows, groups, strict=True):
        row.cells.append(_group_cell(column, group, write, places, best=id(group) in marked))
        for below in row.below:
            assert isinstance(below.subject, Run)
            value = column.of(below.subject)
            below.cells.append(Cell(NONE if value is None else write(value), value))


def _group_cell(column: Column, group: Group, write: Callable, places: int, best: bool) -> Cell:
    values = [column.of(run) for run in group.runs]
    if column.key == "seed":
        seeds = [str(value) for value in values if value is not None]
        return Cell(", ".join(seeds) or NONE, len(values))
    if column.is_word:
        words = dict.fromkeys(str(value) for value in values if value is not None)
        text = ", ".join(_counted(words, values)) if column.key == "state" else ", ".join(words)
        return Cell(text or NONE, text or None)
    found = mean_of(column, group)
    if found is None:
        return Cell(NONE)
    spread = f"{found.spread:,.{places}f}" if found.spread is not None and column.metric else ""
    n = found.n if column.metric and found.n < len(group.runs) else None
    return Cell(write(found.value), found.value if math.isfinite(found.value) else None, spread, n, best)


def _counted(words: dict[str, None], values: list) -> list[str]:
    """finished; 1 finished, 1 failed."""
    return [*words] if len(words) == 1 else [f"{values.count(word)} {word}" for word in words]


def _writer(column: Column, groups: Sequence[Group]) -> tuple[Callable, int]:
    """How the values of a column are written, and the places behind the point."""
    values = [column.of(run) for group in groups for run in group.runs]
    places = decimals(value for value in values if isinstance(value, int | float)) if column.metric else 2
    written: dict[str, Callable] = {
        "word": str,
        "whole": whole,
        "short": short,
        "duration": duration,
        "fixed": lambda value: fixed(value, places),
        "signed": lambda value: fixed(value, places, sign=True),
    }
    return written[column.form], places

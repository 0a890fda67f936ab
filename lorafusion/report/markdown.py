"""report.md: the table of configurations, what differs, and what failed or was not read, for GitHub and terminals."""

from collections.abc import Iterable, Sequence

from lorafusion.report.groups import Group
from lorafusion.report.page import Winner, differences_of, errors, heading, winners
from lorafusion.report.settings import MISSING, show
from lorafusion.report.state import STATES
from lorafusion.report.table import Cell, Table

SPECIAL = "\\`*_[]<>|#~"


def markdown(groups: Sequence[Group], table: Table) -> str:
    runs = [run for group in groups for run in group.runs]
    states = [f"{n} {s}" for s in STATES if (n := sum(run.state.name == s for run in runs))]
    same = [f"{title} {escape(text)}" for title, text in table.same]
    parts = [
        f"# {heading(groups)}",
        "; ".join([*same, ", ".join(states)]),
        _runs(table),
        "Means over seeds ± their standard deviation; the best of what may be compared in bold.",
        *_list(
            "Best", (f"{escape(w.title)}: {escape(w.group.label)}, {w.text}{_next(w)}" for w in winners(groups, table))
        ),
        *_differences(groups),
        *_list(
            "Failed",
            (
                f"{', '.join(escape(run.name) for run in failed)} {state}: {escape(error)}"
                for (state, error), failed in errors(groups).items()
            ),
        ),
        *_list("Not read", (f"{escape(r.name)}: {escape(said)}" for r in runs for said in r.problems)),
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """One line, with nothing in it that Markdown or HTML would take for its own."""
    return "".join(f"\\{c}" if c in SPECIAL else c for c in " ".join(text.split())).replace("\\<", "&lt;")


def _runs(table: Table) -> str:
    heads = [escape(column.title) for column in table.columns]
    rules = ["---" if column.is_word or column.key == "seed" else "---:" for column in table.columns]
    return _rows([heads, rules, *([_cell(cell) for cell in row.cells] for row in table.rows)])


def _next(winner: Winner) -> str:
    return f"; next {escape(winner.second)}" + (", within the spread over seeds" if winner.close else "")


def _cell(cell: Cell) -> str:
    text = escape(cell.text) + (f" ± {cell.spread}" if cell.spread else "") + (f" (n {cell.n})" if cell.n else "")
    return f"**{text}**" if cell.best else text


def _differences(groups: Sequence[Group]) -> list[str]:
    found = differences_of(groups)
    if not found:
        return []
    heads = ["setting", *(escape(group.label) for group in groups)]
    rows = [
        [
            f"{escape(d.path)}" + (f" ({escape(d.content)})" if d.content else ""),
            *("yes" if d.content is not None and v is not MISSING else escape(show(v)) for v in d.values),
        ]
        for d in found
    ]
    return ["## What differs", _rows([heads, ["---"] * len(heads), *rows])]


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _list(title: str, lines: Iterable[str]) -> list[str]:
    lines = [f"- {line}" for line in lines]
    return [f"## {title}", "\n".join(lines)] if lines else []

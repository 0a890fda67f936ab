"""report.html: one file that shows everything, asks no network for anything, and runs no script but its own."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lorafusion.report.columns import Column, direction
from lorafusion.report.curves import Picture, curves
from lorafusion.report.groups import Group
from lorafusion.report.numbers import whole
from lorafusion.report.pareto import paretos
from lorafusion.report.rivals import mean_of, rivals, value_of
from lorafusion.report.run import Run
from lorafusion.report.samples import Grid, grids
from lorafusion.report.settings import MISSING, Difference, differences, show
from lorafusion.report.state import STATES
from lorafusion.report.table import Table


@dataclass(frozen=True)
class Winner:
    """Of a metric among groups that may be compared; second is the next best.

    close:  the second is no further off than the standard deviation of either over its seeds.
    """

    title: str
    group: Group
    text: str
    spread: str
    second: str
    close: bool


def html(groups: Sequence[Group], table: Table) -> str:
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"id": id, "whole": whole, "show": show, "MISSING": MISSING}
    style, script = _source("style.css"), _source("page.js")
    return environment.get_template("page.html.jinja").render(
        content(groups, table),
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def content(groups: Sequence[Group], table: Table) -> dict[str, Any]:
    runs = [run for group in groups for run in group.runs]
    pictures: list[tuple[Group, list[Grid]]] = grids(groups)
    drawn: list[Picture] = curves(groups)
    return {
        "heading": heading(groups),
        "groups": groups,
        "runs": runs,
        "numbers": {id(run): k for k, run in enumerate(runs)},
        "group_numbers": {id(group): k for k, group in enumerate(groups)},
        "table": table,
        "winners": winners(groups, table),
        "facets": facets(groups),
        "errors": errors(groups),
        "states": [(s, n) for s in STATES if (n := sum(run.state.name == s for run in runs))],
        "curves": drawn,
        "paretos": paretos(groups),
        "grids": pictures,
        "differences": differences_of(groups),
        "problems": [(run, run.problems) for run in runs if run.problems],  # after all that reads files
        "made": datetime.now().astimezone(),
    }


def heading(groups: Sequence[Group]) -> str:
    """16 runs of 8 configurations."""
    runs = sum(len(group.runs) for group in groups)
    counted = [f"{n} {name}{'s' * (n != 1)}" for n, name in ((runs, "run"), (len(groups), "configuration"))]
    return " of ".join(counted if runs != len(groups) else counted[:1])


@cache
def _source(name: str) -> str:
    return files("lorafusion.report").joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """Only this very style sheet and this very script, and pictures that are in the page itself."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = (f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src {style_hash}; script-src {script_hash}; "
        "base-uri 'none'; form-action 'none'"
    )


def winners(groups: Sequence[Group], table: Table) -> list[Winner]:
    return [winner for column in table.columns if column.metric for winner in _winners(column, groups, table)]


def _winners(column: Column, groups: Sequence[Group], table: Table) -> list[Winner]:
    at = table.columns.index(column)
    cells = {id(row.subject): row.cells[at] for row in table.rows}
    found = []
    for where, members in rivals(column, groups).items():
        known = [group for group in members if math.isfinite(value_of(column, group))]
        known.sort(key=lambda group: value_of(column, group), reverse=direction(column) is max)
        if len({value_of(column, group) for group in known}) > 1:
            first, second = (cells[id(group)] for group in known[:2])
            title = f"{column.title}: {where}" if where else column.title
            next_best = f"{known[1].label} {second.text}"
            found.append(Winner(title, known[0], first.text, first.spread, next_best, _close(column, *known[:2])))
    return found


def _close(column: Column, a: Group, b: Group) -> bool:
    spreads = [found.spread or 0.0 for group in (a, b) if (found := mean_of(column, group))]
    return abs(value_of(column, a) - value_of(column, b)) <= max(spreads)


def errors(groups: Sequence[Group]) -> dict[tuple[str, str], list[Run]]:
    """(state, error) -> the runs that it ended."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in (run for group in groups for run in group.runs):
        if run.state.error:
            found.setdefault((run.state.name, run.state.error), []).append(run)
    return found


def facets(groups: Sequence[Group]) -> list[tuple[str, str, list[str]]]:
    """(key, title, values) of what runs are chosen by; those with one value choose nothing."""

    def values(of: Any) -> list[str]:
        return list(dict.fromkeys(of(run) for group in groups for run in group.runs))

    found = [
        ("conv", "conv", values(lambda run: run.conditioning("conv"))),
        ("attn", "attention", values(lambda run: run.conditioning("attn"))),
        ("data", "data", values(lambda run: run.data)),
        ("state", "state", values(lambda run: run.state.name)),
    ]
    return [facet for facet in found if len(facet[2]) > 1]


def differences_of(groups: Sequence[Group]) -> list[Difference]:
    """Over those with a config; the others lack it in all."""
    configured = [group for group in groups if group.first.config]
    if len(configured) < 2:
        return []
    found = differences([group.essence for group in configured])
    at = {id(group): k for k, group in enumerate(configured)}
    return [
        Difference(d.path, tuple(d.values[at[id(g)]] if id(g) in at else MISSING for g in groups), d.content)
        for d in found
    ]

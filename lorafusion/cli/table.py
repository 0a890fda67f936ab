"""The table of a sweep: printed when it ends, and kept as sweep.csv in its folder.

One row a job: its number, the overrides in which jobs differ, its state, what was measured last, seconds, folder.
"""

import csv
from collections import Counter
from pathlib import Path

from lorafusion.cli.notes import SPEEDS, Note, measured, read_all, settle
from lorafusion.files import json_object, replacing

FILE = "sweep.csv"
MEASURES = 3  # so many are printed; the file has all


def conclude(sweep: Path, planned: list[Note]) -> bool:
    """Write and print the table, then the sweep's folder; whether a job failed."""
    notes = [settle(sweep, note) for note in read_all(sweep)]
    known = {note.job for note in notes}
    notes = sorted([*notes, *(note for note in planned if note.job not in known)], key=lambda note: note.job)
    rows = [_row(sweep, note, keys) for keys in [differing(notes)] for note in notes]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns.sort(key=lambda key: key in ("seconds", "images_seen", "error", "folder"))  # stable: these come last
    if notes:
        with replacing(sweep / FILE) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    print("\n" + rendered(rows, _printed(columns, differing(notes))) if rows else "no job was begun")
    states = Counter(note.state for note in notes)
    reasons: dict[str, list[str]] = {}
    for note in notes:
        if note.state == "failed":
            reasons.setdefault(note.error or "no reason given", []).append(str(note.job))
    for reason, jobs in reasons.items():
        print(f"job{'s' * (len(jobs) > 1)} {', '.join(jobs)} failed: {reason}")
    print(f"{len(notes)} jobs: {', '.join(f'{n} {state}' for state, n in states.items())}")
    print(sweep, flush=True)
    return bool(states["failed"])


def differing(notes: list[Note]) -> list[str]:
    """The overrides whose values are not the same in all jobs, in the order in which they were written."""
    values: dict[str, set[str | None]] = {}
    settings = [_settings(note) for note in notes]
    for one in settings:
        for key in one:
            values.setdefault(key, {other.get(key) for other in settings})
    return [key for key, found in values.items() if len(found) > 1]


def _settings(note: Note) -> dict[str, str]:
    parts = [text.partition("=") for text in note.overrides]
    return {key: value for key, _, value in parts}


def _row(sweep: Path, note: Note, keys: list[str]) -> dict[str, str]:
    settings = _settings(note)
    run = sweep / note.folder
    row = {"job": str(note.job), **{key: settings.get(key, "") for key in keys}, "state": note.state}
    if note.state == "pending":
        return row
    status = json_object(run / "status.json")
    row |= measured(run)
    if note.returned is not None:
        row["objective"] = repr(note.returned)
    row |= {key: str(status[key]) for key in ("seconds", "images_seen") if key in status}
    return row | {"error": note.error or "", "folder": note.folder}


def _printed(columns: list[str], keys: list[str]) -> list[str]:
    ends = ["seconds", "folder"]
    measures = [c for c in columns if c not in ("job", "state", "images_seen", "error", "objective", *keys, *ends)]
    quality = [c for c in measures if not c.startswith(SPEEDS)][:MEASURES]
    return ["job", *keys, "state", *quality, *(c for c in ends if c in columns)]


def rendered(rows: list[dict[str, str]], columns: list[str]) -> str:
    """Columns side by side, as wide as they need; figures to six digits."""
    cells = [[_short(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [columns, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _short(text: str) -> str:
    try:
        return f"{float(text):.6g}" if "." in text else text
    except ValueError:
        return text

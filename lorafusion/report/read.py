"""Readers of files that may be missing, torn, damaged or hostile: what cannot be read raises `Damaged`."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml

LARGEST = 4 << 20  # bytes of a yaml or json file
LARGEST_CSV = 256 << 20
DEEPEST = 40  # levels of a yaml file: its fast reader crashes at some thousands
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Column = list[tuple[float, float]]  # (images seen, value), images rising


class Damaged(Exception):
    """Why a file could not be read, in a few words."""


def text(file: Path, largest: int = LARGEST) -> str | None:
    """None where there is no such file."""
    try:
        if not file.is_file():
            return None
        if file.stat().st_size > largest:
            raise Damaged(f"is larger than {largest >> 20} MiB")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Damaged("is not text") from None
    except OSError as error:
        raise Damaged(error.strerror or "cannot be opened") from None


def json_object(file: Path) -> dict[str, Any]:
    """{} where there is no such file."""
    content = text(file)
    try:
        found = {} if content is None else json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged("is not JSON") from None
    if not isinstance(found, dict):
        raise Damaged("is no JSON object")
    return found


def yaml_object(content: str) -> dict[str, Any]:
    """References are refused: a few lines of them can stand for billions of settings."""
    try:
        _check_plain(content)
        found = yaml.load(content, Loader=LOADER)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # also dates that are none, keys that are lists
        raise Damaged("is not YAML") from None
    if not isinstance(found, dict):
        raise Damaged("holds no settings")
    return found


def _check_plain(content: str) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise Damaged("holds references, which no run writes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise Damaged(f"is nested more than {DEEPEST} levels deep")


def history(file: Path) -> tuple[dict[str, Column], list[str]]:
    """The columns of a metrics.csv, and which of its lines were left out. {} where there is no such file."""
    content = text(file, LARGEST_CSV)
    lines = (content or "").splitlines(keepends=True)
    left_out = []
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines.pop()  # cut off within a number, it would read as another
        left_out.append(f"line {len(lines) + 1} is cut off")
    columns: dict[str, Column] = {}
    try:
        rows = csv.reader(lines)
        names = next(rows, [])
        for row in rows:
            if len(row) != len(names) or not _add(dict(zip(names, row, strict=True)), columns):
                left_out.append(f"line {rows.line_num} does not fit the columns")
    except csv.Error as error:
        left_out.append(str(error))
    return {name: sorted_once(points) for name, points in columns.items()}, left_out


def _add(row: dict[str, str], columns: dict[str, Column]) -> bool:
    """Add a row's filled cells. False where one is no number, or the row does not say where it stands."""
    try:
        numbers = {name: float(cell) for name, cell in row.items() if cell != ""}
    except ValueError:
        return False
    x = numbers.get("nimg" if "nimg" in row else "step")
    if x is None or not math.isfinite(x):
        return False
    for name, value in numbers.items():
        if name not in ("nimg", "step", "epoch"):
            columns.setdefault(name, []).append((x, value))
    return True


def sorted_once(points: Column) -> Column:
    """By images seen; of two values at one place, that of a resumed run say, the later one."""
    return sorted(dict(points).items())

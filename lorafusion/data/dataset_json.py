"""The labels of NVlabs' data sets: {"labels": [["00000/img00000000.png", 6], ...]}, or {"labels": null}.

The list comes from elsewhere and may have a million items, or pretend to. It is read an item at a time, and no value is
made of text that does not begin as an item does: nested lists take twenty times their text.
"""

import json
import re
from collections.abc import Iterator
from json.decoder import scanstring  # pyright: ignore[reportAttributeAccessIssue]
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from lorafusion.data.archive import find
from lorafusion.errors import UserError

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(\d{1,10})[ \t\n\r]*\]")
_ITEM = re.compile(
    r"""
    \s* \[ \s* "([^"\\\x00-\x1f]*)" \s* , \s* (\d{1,10}) \s* \] \s* ([,\]])""",
    re.VERBOSE | re.ASCII,
)
_LONGEST = 1 << 16  # characters before "labels"
_DECODER = json.JSONDecoder()


def labels(data: bytes, names: list[str], where: Path) -> Int64[np.ndarray, "N"]:
    """Classes of the images with these sorted names, -1 = unlabelled. Raises UserError unless each is listed once."""
    found = np.full(len(names), -1)
    try:
        text = data.decode()
        start = _value_of_labels(text)
        if text.startswith("null", start):
            return found
        following = 0  # the list is nearly always in the order of the names
        for name, label in _items(text, start):
            in_turn = following < len(names) and names[following] == name
            at = following if in_turn else find(names, name)
            if at is None:
                raise UserError(f"{where}: names {name!r:.100}, which is not among the images")
            if found[at] != -1:
                raise UserError(f"{where}: names an image twice, {name!r}")
            if label >> 31:
                raise UserError(f"{where}: label {label} of {name!r} is not a class number, 0 or more")
            found[at], following = label, at + 1
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where}: not of the form {{"labels": [["name.png", 3], ...]}} ({error})') from error
    missing = np.flatnonzero(found == -1)
    if len(missing):
        count = len(names) - len(missing)
        raise UserError(f"{where}: {count} labels for {len(names)} images; {names[missing[0]]!r} has none")
    return found


def _items(text: str, at: int) -> Iterator[tuple[str, int]]:
    at = _after("[", text, at)
    while not text.startswith("]", at):
        if item := _ITEM.match(text, at):  # nearly all
            yield item[1], int(item[2])
            at = item.end() - (item[3] == "]")
            continue
        name, at = scanstring(text, _after('["', text, at))
        at = _after(",", text, at)
        number = _NUMBER.match(text, at)
        if number is None:
            shown = text[at : at + 20].partition("]")[0]
            raise ValueError(
                f"{shown.strip() or 'nothing'} is no label of {name!r:.100}: a class is a number, 0 or more"
            )
        yield name.replace("\\", "/"), int(number[1])
        at = _space(text, number.end())
        if not text.startswith("]", at):
            at = _after(",", text, at)


def _value_of_labels(text: str) -> int:
    """Where it begins."""
    at = _after("{", text, 0)
    while True:
        key, at = scanstring(text, _after('"', text, at))
        at = _after(":", text, at)
        if key == "labels":
            return at
        _, at = _DECODER.raw_decode(text[: at + _LONGEST], at)
        at = _after(",", text, at)


def _after(token: str, text: str, at: int) -> int:
    """Behind the characters of ``token``, space allowed around each. Raises ValueError where others stand."""
    for character in token:
        at = _space(text, at)
        if not text.startswith(character, at):
            raise ValueError(f"character {at}: {text[at : at + 10]!r} instead of {character}")
        at += 1
    return at if token.endswith('"') else _space(text, at)


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at

"""What `ast` makes of an annotation, against beartype, which judges the same annotation as an object."""

import ast
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pytest
from beartype.door import is_bearable
from hydra.core.override_parser.overrides_parser import OverridesParser

from lorafusion.cli.signature import Module
from lorafusion.cli.values import instead, like, read, show

MODULE = Module("typing", None, None)
ANNOTATIONS = {
    "int": int,
    "bool": bool,
    "str": str,
    "None": None,
    "int | None": int | None,
    "Optional[str]": str | None,
    "Union[bool, str]": bool | str,
    "list[int]": list[int],
    "Sequence[str]": Sequence[str],
    "Sequence[int] | None": Sequence[int] | None,
    "tuple[int, ...]": tuple[int, ...],
    "tuple[int, str]": tuple[int, str],
    "Literal['a', 'b', 3]": Literal["a", "b", 3],
    "Literal['a'] | None": Literal["a"] | None,
    "Annotated[int, 'at least 1']": Annotated[int, "at least 1"],
    "dict[str, int]": dict[str, int],
    "Mapping[str, int]": Mapping[str, int],
    "'int | str'": int | str,
    "list": list,
}
VALUES = (0, 3, -1.5, True, "a", "c", "", None, [], [1], ["a"], [1, "a"], {})


@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_agrees_with_beartype(annotation):
    ours = read(ast.parse(annotation, mode="eval").body, MODULE)
    assert ours is not None
    for value in VALUES:
        if isinstance(value, bool) and "int" in annotation:
            continue  # Python takes True for a whole number; a configuration should not
        if isinstance(value, str) and "Sequence" in annotation:
            continue  # Python takes a text for a sequence of letters; a configuration should not
        if isinstance(value, list) and len(value) > 1 and annotation != "tuple[int, str]":
            continue  # beartype looks at one item, chosen at random
        converted = tuple(value) if isinstance(value, list) and "tuple" in annotation else value
        assert ours.fits(value) == is_bearable(converted, ANNOTATIONS[annotation]), (annotation, value)


def test_what_is_not_understood_takes_everything():
    for annotation in ("Float[Tensor, 'B']", "Any", "Callable[[int], int]", "int | Unknown", "nn.Module"):
        assert read(ast.parse(annotation, mode="eval").body, MODULE) is None


def test_every_item_of_a_list_is_looked_at():
    wanted = read(ast.parse("list[int]", mode="eval").body, MODULE)
    assert wanted is not None
    assert not wanted.fits([1, "a"])
    assert not wanted.fits([1, True])


def test_a_number_may_be_whole():
    wanted = read(ast.parse("float", mode="eval").body, MODULE)
    assert wanted is not None
    assert wanted.fits(1)
    assert not wanted.fits(True)


def test_an_alias_in_another_module_is_followed(tmp_path, monkeypatch):
    (tmp_path / "there.py").write_text("from typing import Literal\nKind = Literal['x', 'y']\n")
    (tmp_path / "__init__.py").write_text("from .there import Kind as Sort\n")
    package = Module(tmp_path.name, tmp_path / "__init__.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path.parent)
    wanted = read(ast.parse("Sort", mode="eval").body, package)
    assert wanted is not None
    assert wanted.choices == ("x", "y")


@pytest.mark.parametrize(
    ("value", "annotation", "near"),
    [
        (1e6, "int", [1000000]),
        (12.5, "int", [12, 13]),
        ("16", "int", [16]),
        ("yes", "bool", [True]),
        ("none", "int | None", [None]),
        (5, "str", ["5"]),
        (5, "list[int]", [[5]]),
        ([5], "int", [5]),
        ("abc", "int", []),
        (float("nan"), "int", []),
    ],
)
def test_values_near_a_wrong_one(value, annotation, near):
    wanted = read(ast.parse(annotation, mode="eval").body, MODULE)
    assert wanted is not None
    assert instead(value, wanted) == near


def test_shown_as_it_is_typed():
    for value in (None, True, 3, 1.5, "ddim", "3", "true", "", "null", [1, "a", "2"], []):
        assert OverridesParser.create().parse_override(f"key={show(value)}").value() == value


def test_the_kind_of_a_default():
    for value, name in (
        (1, "a whole number"),
        (1.5, "a number"),
        (True, "true or false"),
        ("a", "text"),
        ([], "a list"),
    ):
        kind = like(value)
        assert kind is not None
        assert kind.name == name
    assert like(None) is None

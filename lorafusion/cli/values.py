"""Whether a value of the configuration fits an annotation that was read with `ast`."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorafusion.cli.signature import Module, resolve


@dataclass(frozen=True)
class Type:
    """name: what a message calls it, 'a whole number'. choices: its values, where they are few. objects: of a class."""

    name: str
    fits: Callable[[Any], bool]
    choices: tuple[Any, ...] = ()
    objects: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


INT = Type("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool))
FLOAT = Type("a number", _is_number)
BOOL = Type("true or false", lambda v: isinstance(v, bool), (True, False))
STR = Type("text", lambda v: isinstance(v, str))
NULL = Type("null", lambda v: v is None, (None,))
DICT = Type("a group of settings", lambda v: isinstance(v, dict))
OBJECT = Type("a group of settings with _target_", lambda v: isinstance(v, dict), objects=True)
LIST = Type("a list", lambda v: isinstance(v, list))

_SCALARS = {"int": INT, "float": FLOAT, "bool": BOOL, "str": STR, "None": NULL, "Path": STR, "PathLike": STR}
_LISTS = {"list", "List", "Sequence", "Iterable", "Collection", "set", "Set", "MutableSequence"}
_DICTS = {"dict", "Dict", "Mapping", "MutableMapping"}


def read(annotation: ast.expr | None, module: Module, depth: int = 8) -> Type | None:
    """The type that an annotation states; None where it does not say or is not understood: then every value fits."""
    match annotation:
        case ast.Constant(value=None):
            return NULL
        case ast.Constant(value=str(text)):
            return read(ast.parse(text, mode="eval").body, module, depth)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([read(left, module, depth), read(right, module, depth)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside):
            return _subscript(name, inside.elts if isinstance(inside, ast.Tuple) else [inside], module, depth)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _named(name, module, depth) if isinstance(annotation, ast.Name) else _SCALARS.get(name)
    return None


def _named(name: str, module: Module, depth: int) -> Type | None:
    if name in _SCALARS:
        return _SCALARS[name]
    if name in _LISTS or name in ("tuple", "Tuple"):
        return LIST
    if name in _DICTS:
        return DICT
    found = resolve(module, name) if depth else None
    if found is None:
        return None
    if isinstance(found.node, ast.ClassDef):
        ours = found.module.name.startswith("lorafusion")
        return OBJECT if ours and not any("Enum" in ast.unparse(base) for base in found.node.bases) else None
    return read(found.node, found.module, depth - 1) if isinstance(found.node, ast.expr) else None


def _subscript(name: str, inside: list[ast.expr], module: Module, depth: int) -> Type | None:
    if name == "Literal":
        return literal(tuple(e.value for e in inside if isinstance(e, ast.Constant)))
    if name == "Annotated":
        return read(inside[0], module, depth)
    if name == "Optional":
        return _union([read(inside[0], module, depth), NULL])
    if name == "Union":
        return _union([read(member, module, depth) for member in inside])
    if name in _LISTS:
        return _list([read(inside[0], module, depth)])
    if name in ("tuple", "Tuple"):
        if len(inside) == 2 and isinstance(inside[1], ast.Constant) and inside[1].value is ...:
            return _list([read(inside[0], module, depth)])
        return _list([read(member, module, depth) for member in inside], len(inside))
    return DICT if name in _DICTS else None


def literal(choices: tuple[Any, ...]) -> Type:
    def fits(value: Any) -> bool:
        return any(value == choice and type(value) is type(choice) for choice in choices)

    return Type(f"one of {', '.join(map(show, choices))}", fits, choices)


def _union(members: list[Type | None]) -> Type | None:
    known = [member for member in members if member is not None]
    if len(known) < len(members):
        return None
    choices = tuple(choice for member in known for choice in member.choices)
    enumerated = [f"one of {', '.join(dict.fromkeys(map(show, choices)))}"] if len(choices) > 2 else []
    others = [member.name for member in known if not (enumerated and member.choices)]
    name = " or ".join(dict.fromkeys(enumerated + others))
    return Type(name, lambda value: any(member.fits(value) for member in known), choices)


def _list(items: list[Type | None], length: int | None = None) -> Type:
    """A list whose every item is of one type (length None), or whose item k is of type k."""

    def fits(value: Any) -> bool:
        if not isinstance(value, list) or (length is not None and len(value) != length):
            return False
        types = items * len(value) if length is None else items
        return all(t is None or t.fits(v) for t, v in zip(types, value, strict=True))

    size = "" if length is None else f" of {length}"
    each = f", each {items[0].name}" if items[0] else ""
    return Type(f"a list{size}{each}", fits)


def like(value: Any) -> Type | None:
    """The type of a default value, for settings that no annotation describes; None where every value fits."""
    for scalar in (BOOL, INT, FLOAT, STR, LIST, DICT):
        if scalar.fits(value):
            return scalar
    return None


def show(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        reads_otherwise = (
            value.lower() in ("", "null", "true", "false") or value.replace(".", "").replace("-", "").isdigit()
        )
        return f"'{value}'" if reads_otherwise else value
    return f"[{','.join(map(show, value))}]" if isinstance(value, list) else str(value)


def instead(value: Any, wanted: Type) -> list[Any]:
    """Values near a wrong one that fit: 1e6 -> 1000000, '16' -> 16, yes -> true."""
    near: list[Any] = []
    text = str(value).strip().lower()
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        near += [int(value)] if value == int(value) else [int(value // 1), int(value // 1) + 1]
    elif text in ("yes", "on", "1", "y", "t"):
        near.append(True)
    elif text in ("no", "off", "0", "n", "f"):
        near.append(False)
    elif text in ("none", "nil", "~"):
        near.append(None)
    for convert in (int, float) if isinstance(value, str) else ():
        try:
            near.append(convert(value))
        except ValueError:
            continue
        break
    near += [str(value)] if _is_number(value) else []
    near += [[value]] if not isinstance(value, list | dict) else []
    near += value if isinstance(value, list) and len(value) == 1 else []
    return [other for other in near if wanted.fits(other)]

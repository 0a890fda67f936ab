"""Configurations as flat settings, and where those of several runs differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# What says nothing about the model or its training: names, places, and what only shows or keeps things.
OUTSIDE = {"paths", "name", "tags", "logger", "task", "resume", "hydra", "paper", "validate_every_images"}
OUTSIDE_CALLBACKS = {"progress", "curves", "sample_grid", "checkpoint"}
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """path:    dotted. values: of each configuration, MISSING where it has none.
    content: of a whole branch that some have and some lack: what is in it. None = ``values`` are values.
    """

    path: str
    values: tuple[Any, ...]
    content: str | None = None


def essence(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without its seeds, names and places: equal for runs that are repeats of each other."""
    callbacks = config.get("callbacks")
    chosen = {key: value for key, value in config.items() if key not in OUTSIDE}
    if isinstance(callbacks, dict):
        chosen["callbacks"] = {k: v for k, v in callbacks.items() if k not in OUTSIDE_CALLBACKS}
    paths = config.get("paths")
    values = paths.values() if isinstance(paths, dict) else ()
    folders = [path.rstrip("/") for path in values if isinstance(path, str) and len(path) > 1]
    return _stripped(chosen, folders)


def _stripped(node: Any, folders: Sequence[str]) -> Any:
    if isinstance(node, dict):
        return {k: _stripped(v, folders) for k, v in node.items() if k != "seed"}
    if isinstance(node, list):
        return [_stripped(item, folders) for item in node]
    if isinstance(node, str):
        return next(("..." + node[len(f) :] for f in folders if node == f or node.startswith(f + "/")), node)
    return node


def at(config: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    node: Any = config
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def differences(configs: Sequence[dict[str, Any]]) -> list[Difference]:
    """The settings that are not equal over all configurations; of those that repeat each other, the shortest path."""
    found = sorted(_differ(list(configs), ""), key=lambda d: d.path.count("."))  # stable
    kept: dict[tuple[str, str], Difference] = {}
    for difference in found:
        said = difference.path.rpartition(".")[2], repr((difference.content, [show(v) for v in difference.values]))
        kept.setdefault(said, difference)
    order = {d.path: k for k, d in enumerate(_differ(list(configs), ""))}
    return sorted(kept.values(), key=lambda d: order[d.path])


def _differ(nodes: list[Any], path: str) -> Iterator[Difference]:
    if all(_same(node, nodes[0]) for node in nodes):
        return
    present = [node for node in nodes if node is not MISSING]
    if not all(_is_dict(node) for node in present):
        yield Difference(path, tuple(nodes))
    elif len(present) < len(nodes) and all(_same(node, present[0]) for node in present):
        yield Difference(path, tuple(nodes), inline(present[0]))
    else:
        for key in dict.fromkeys(key for node in present for key in node):
            below = [node.get(key, MISSING) if _is_dict(node) else MISSING for node in nodes]
            yield from _differ(below, f"{path}.{key}" if path else str(key))


def _same(a: Any, b: Any) -> bool:
    """Unlike ==: 1 and true differ, nan is itself."""
    return a is b or (a is not MISSING and b is not MISSING and repr(a) == repr(b))


def _is_dict(node: Any) -> bool:
    return isinstance(node, dict)


def inline(node: dict[str, Any]) -> str:
    """What a branch holds, in one line, its class left out."""
    return ", ".join(f"{key} {show(value)}" for key, value in node.items() if not str(key).startswith("_"))


def show(value: Any) -> str:
    """As it is written on the command line; a class by its name."""
    if value is MISSING:
        return "\N{EN DASH}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, dict):
        return f"{{{inline(value)}}}"
    text = str(value)
    return text.rpartition(".")[2] if text.startswith(("lorafusion.", "torch.", "lightning.")) else text

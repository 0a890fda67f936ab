"""Walks over a composed configuration; what is Hydra's own is left out."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, container, key) of every value; what an interpolation points to is not entered."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if not path and key == "hydra":
            continue
        below = f"{path}.{key}" if path else str(key)
        yield below, node, key
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig | ListConfig):
            yield from walk(node[key], below)


def calls(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """(dotted path, node) of every node with a _target_."""
    for path, node, key in walk(cfg):
        if key == "_target_" and not OmegaConf.is_missing(node, key):
            yield path.removesuffix("_target_").removesuffix("."), node


def unresolved(cfg: DictConfig) -> dict[str, Any]:
    """Nested dicts of a configuration as it is written, interpolations and all."""
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    return content  # pyright: ignore[reportReturnType]


def at(content: dict[str, Any], path: str) -> Any:
    """The value at a dotted path of nested dicts; None if there is none."""
    value: Any = content
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def plain(value: Any) -> Any:
    """Lists as lists, groups of settings as an empty dict: what matters of them is that they are one."""
    if isinstance(value, ListConfig):
        return [plain(item) for item in value]
    return {} if isinstance(value, DictConfig) else value

"""Refuses conditioning that cannot work in the network of a configuration, by the rules that the classes state.

A strategy's ``refuses`` (see rules.py) and a network's ``attends_at`` are read from their source with `ast`.
"""

import ast
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lorafusion.cli.signature import Definition, definition, resolve
from lorafusion.rules import broken


def refusal(cfg: DictConfig) -> str | None:
    """Why the conditioning of ``cfg`` cannot work, and what would; None where nothing is known against it."""
    backbone, conditioning = _plain(cfg, "backbone"), _plain(cfg, "conditioning")
    for kind in ("conv", "attn"):
        strategies = [node for node in (conditioning.get(kind) or {}).values() if isinstance(node, dict)]
        for strategy in strategies:
            rules = declared(str(strategy.get("_target_")), "refuses") or {}
            try:
                reason = broken(rules, {**_defaults(strategy), **backbone, **strategy})
            except (ValueError, KeyError, TypeError):
                continue  # a value that is no such thing is said elsewhere
            if reason:
                return reason
        if kind == "attn" and strategies and (sizes := _unattended(backbone)) is not None:
            name = next(iter(conditioning[kind]))
            return (
                f"{name} enters attention, and this network has none: {sizes}; "
                "give it some sizes, or leave the strategy out (conditioning/attn=[])"
            )
    return None


def facts(cfg: DictConfig) -> tuple[Any, Any]:
    """All of a configuration that ``refusal`` depends on."""
    return _plain(cfg, "conditioning"), _plain(cfg, "backbone")


def declared(target: str, name: str) -> Any:
    """The literal value of a class's attribute, inherited too; None where the source shows none."""
    found = definition(target)
    return _attribute(found, name) if found else None


def _attribute(found: Definition, name: str, depth: int = 8) -> Any:
    if not isinstance(found.node, ast.ClassDef):
        return None
    for member in found.node.body:
        targets = member.targets if isinstance(member, ast.Assign) else []
        targets = [member.target] if isinstance(member, ast.AnnAssign) else targets
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return ast.literal_eval(member.value) if member.value else None  # pyright: ignore[reportAttributeAccessIssue]
    for base in found.node.bases if depth else ():
        above = resolve(found.module, base.id) if isinstance(base, ast.Name) else None
        if above and (value := _attribute(above, name, depth - 1)) is not None:
            return value
    return None


def _defaults(strategy: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments that the configuration leaves out, where they are literals."""
    found = definition(str(strategy.get("_target_")))
    body = found.node.body if found and isinstance(found.node, ast.ClassDef) else []
    for member in body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            arguments = member.args.args[len(member.args.args) - len(member.args.defaults) :]
            pairs = [*zip(arguments, member.args.defaults, strict=True)]
            return {a.arg: d.value for a, d in pairs if isinstance(d, ast.Constant)}
    return {}


def _unattended(backbone: dict[str, Any]) -> str | None:
    """'attn_resolutions=[]' where the backbone would have no attention at any of its sizes, halves of each other."""
    setting = declared(str(backbone.get("_target_")), "attends_at")
    sizes, size = backbone.get(setting or ""), backbone.get("resolution")
    if not isinstance(sizes, list) or not isinstance(size, int):
        return None
    halves = {size >> k for k in range(size.bit_length())}
    return None if halves & {*sizes} else f"backbone.{setting}=[{','.join(map(str, sizes))}]"


def _plain(cfg: DictConfig, key: str) -> dict[str, Any]:
    node = OmegaConf.select(cfg, key)
    content = OmegaConf.to_container(node, resolve=True, throw_on_missing=False) if node is not None else {}
    return content if isinstance(content, dict) else {}  # pyright: ignore[reportReturnType]

"""Whether a job is the one that its folder holds already, so that it may be skipped or gone on with."""

from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from lorafusion.cli.registry import flat
from lorafusion.cli.tree import at

# Settings that change what a run is called, where it lies or what it runs on, and nothing that it computes.
FREE = (
    *("resume", "name", "tags", "paths", "logger", "hydra", "callbacks.progress", "objective"),
    *("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.num_nodes", "trainer.log_every_n_steps"),
)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def is_free(key: str) -> bool:
    key = key.lstrip("+~").replace("/", ".").replace("@", ".")
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def decisive(overrides: list[str]) -> set[str]:
    """The overrides that may change what a job computes."""
    return {text for text in overrides if not is_free(text.partition("=")[0])}


def changed(run: Path, cfg: DictConfig) -> str | None:
    """The first setting in which the run in a folder differs from ``cfg``, 'seed=0, now 1'; None if it is the same."""
    try:
        before = yaml.load((run / "config.yaml").read_text(), Loader=_Loader)
    except (OSError, yaml.YAMLError):
        return None
    now = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    if not isinstance(before, dict):
        return "config.yaml is damaged"
    moved = {str(v): str(now["paths"].get(k)) for k, v in (before.get("paths") or {}).items() if k in now["paths"]}
    for key in dict.fromkeys([*flat(before), *flat(now), *targets(before), *targets(now)]):
        old, new = at(before, key), at(now, key)
        if (isinstance(old, dict) and isinstance(new, dict)) or is_free(key) or _moved(old, moved) == new:
            continue
        return f"{key}={_said(old)}, now {_said(new)}"
    return None


def targets(node: Any, prefix: str = "") -> list[str]:
    """Dotted names of every _target_ of nested dicts."""
    found = []
    for key, value in node.items() if isinstance(node, dict) else ():
        path = f"{prefix}{key}"
        found += [path] if key == "_target_" else targets(value, f"{path}.")
    return found


def _moved(value: Any, moved: dict[str, str]) -> Any:
    """A value with the run's old folders replaced by where they are now."""
    if isinstance(value, list):
        return [_moved(item, moved) for item in value]
    if isinstance(value, str):
        for old, new in moved.items():
            if value == old or value.startswith(f"{old}/"):
                return new + value.removeprefix(old)
    return value


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_said, value))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))

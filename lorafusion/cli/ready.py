"""What a configuration whose values are right may still lack: what must be given, and files that must exist."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lorafusion.cli.mistake import Mistake, nearest
from lorafusion.cli.registry import Registry
from lorafusion.cli.tree import walk

PATHS = {
    "ckpt": (),
    "samples": (),
    "resume": ("auto",),
    "init_from": (),
    "file": (),
    "runs": (),
}  # settings that name an existing file, and words that are no file
PATTERNS = {"runs"}  # of them, those that may also name many


def check_ready(cfg: DictConfig, registry: Registry) -> None:
    """Raises Mistake where a task is missing, or a value that it needs, or a file."""
    if OmegaConf.select(cfg, "task._target_") is None:
        raise Mistake("no task is chosen", f"task: {', '.join(registry.groups['task'])}")
    for path, node, key in walk(cfg):
        if OmegaConf.is_missing(node, key):
            comment = registry.comment("task", cfg.hydra.runtime.choices.get("task"), key)
            raise Mistake(f"{path}=... must be given", f"{path}: {comment}" if comment else "")
    for key, words in PATHS.items():
        value = cfg.get(key)
        if key in PATTERNS and {*"*?["} & {*str(value)}:
            continue
        if isinstance(value, str) and value not in words and not Path(value).exists():
            raise Mistake(f"{key}={value}: there is no such file or folder", _near_path(key, value, words))


def _near_path(key: str, value: str, words: tuple[str, ...]) -> str:
    """The entries of the deepest existing folder on the way that look most like the next part."""
    path = Path(value)
    if value.startswith("~") and path.expanduser().exists():
        return f"did you mean {key}={path.expanduser()}?"
    while not path.parent.exists():
        path = path.parent
    entries = [entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    names = nearest(path.name, [entry.name for entry in entries], most=2)
    near = [str(entry) for name in names for entry in entries if entry.name == name] + nearest(value, words)
    if near:
        return f"did you mean {' or '.join(f'{key}={full}' for full in near)}?"
    return f"nothing like {path.name} is in {path.parent.resolve()}"

"""Names the setting that a mistyped one may have meant."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf

from lorafusion.cli.mistake import Mistake, nearest, suggest
from lorafusion.cli.registry import Registry, flat

PLUGINS = ("hydra/launcher", "hydra/sweeper")


def settings_of(cfg: DictConfig, hydra: bool = False) -> list[str]:
    """Every dotted setting of a configuration; those of Hydra itself only if asked."""
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    hydras = content.pop("hydra", {})
    return flat({"hydra": hydras} if hydra else content)


def check_keys(settings: Sequence[Override], base: DictConfig, registry: Registry) -> None:
    """Raises Mistake for the first override that does not suit ``base``, the configuration without any of them."""
    for override in settings:
        known = settings_of(base, hydra=override.key_or_group.startswith("hydra"))
        if override.is_add():
            _check_added(override, base, known)
        elif not override.is_force_add() and not is_there(base, override.key_or_group, known):
            raise unknown_setting(override, known, registry)


def is_there(base: DictConfig, key: str, known: Sequence[str]) -> bool:
    parent, _, last = key.rpartition(".")
    if last.startswith("_") or last.isdigit():  # _target_, or an item of a list
        node: Any = OmegaConf.select(base, parent) if parent else base
        return last in node if isinstance(node, DictConfig) else isinstance(node, ListConfig) and int(last) < len(node)
    return key in known


def _check_added(override: Override, base: DictConfig, known: Sequence[str]) -> None:
    key, given = override.key_or_group, str(override.input_line)
    if key in known and OmegaConf.select(base, key, throw_on_missing=False) is not None:
        raise Mistake(f"{given}: {key} is there already", f"did you mean {given.lstrip('+')}?")


def check_added_root(override: Override, base: DictConfig) -> None:
    """Raises Mistake where + would start a new branch that looks like a mistyped one: nobody would read it."""
    root, dot, rest = override.key_or_group.partition(".")
    roots = [name for name in base if isinstance(name, str) and name != "hydra"]
    if root not in roots and (near := nearest(root, roots)):
        value = str(override.input_line).partition("=")[2]
        raise Mistake(f"{override.input_line}: nothing reads {root}", f"did you mean +{near[0]}{dot}{rest}={value}?")


def unknown_setting(override: Override, known: Sequence[str], registry: Registry) -> Mistake:
    key, given = override.key_or_group, str(override.input_line)
    value = str(override.input_line).partition("=")[2]
    if choices := registry.offered_by(key):
        deeper = [f"{name}={value} or " for name in known if name.partition(".")[2] == key]
        hint = f"did you mean {''.join(deeper)}to add {' or '.join(choices[:3])}?"
        return Mistake(f"{given}: {key} comes with another choice", hint)
    names = {*registry.groups, *known} - {group.replace("/", ".") for group in registry.groups if "/" in group}
    near = nearest(key, [name for name in names if not key.startswith(f"{name}.")])
    if near:
        write = "~{}" if override.is_delete() else f"{{}}={value}"
        hint = f"did you mean {' or '.join(write.format(name) for name in near)}?"
    else:
        hint = _from_afar(key, known, registry)
    return Mistake(f"{given}: no such setting", hint, "all settings: python run.py --cfg job")


def _from_afar(key: str, known: Sequence[str], registry: Registry) -> str:
    """Looks among the settings of options that are not chosen, then lists what the nearest existing parent has."""
    elsewhere = {
        name: choice
        for group, options in registry.groups.items()
        for option in options
        if group != "experiment"
        for name, choice in dict.fromkeys(registry.offers(group, option), f"{group}={option}").items()
    }
    if near := nearest(key, elsewhere):
        return f"did you mean {near[0]}, with {elsewhere[near[0]]}?"
    parent = key.rpartition(".")[0]
    children = [name for name in known if name.rpartition(".")[0] == parent]
    return f"{parent or 'top level'} has {', '.join(name.rpartition('.')[2] for name in children)}" if children else ""


def composition_mistake(error: Exception, choices: Sequence[Override], registry: Registry) -> Mistake:
    """What Hydra says when it cannot compose, in three lines."""
    for choice in choices:
        group = choice.key_or_group
        if f"override '{group}'" in str(error) and (added := registry.offered_by(group)):
            shortest = " or ".join(sorted(added, key=len)[:3])
            return Mistake(f"{choice.input_line}: nothing here reads {group}", f"did you mean to add {shortest}?")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        given = [str(choice.input_line) for choice in choices if choice.key_or_group == group]
        wrong = f"{given[0]}: no such choice" if given else f"there is no file {error.missing_cfg_file}"
        extra = "pip install 'lorafusion[sweep]' brings joblib, submitit and optuna" if group in PLUGINS else ""
        return Mistake(wrong, suggest(option, error.options or [], f"{group}={{}}"), extra)
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = [line.strip() for line in str(error.__cause__ or "").splitlines() if line.strip()]
    return Mistake(*(said[:2] or [type(error).__name__]), *cause[:1])

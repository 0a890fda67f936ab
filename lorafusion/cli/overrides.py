"""Reads what stands behind `run.py`: overrides, the choices of groups among them, the alternatives of sweeps."""

import re
from itertools import islice

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from lorafusion.cli.mistake import Mistake, nearest, suggest
from lorafusion.cli.registry import Registry

SWEEP_LIMIT = 256  # alternatives of one sweep that are checked; a range may have a million


def parse(text: str, registry: Registry) -> Override:
    """One override. Raises Mistake where the text is none, or chooses what no group has."""
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"":
        raise Mistake(f"{text}: the shell passed the quotes on", f"did you mean {text[1:-1]}?")
    if "=" not in text and not text.startswith("~"):
        raise _bare_word(text, registry)
    if re.match(r"[+~]*/", text):
        raise Mistake(
            f"{text}: a group is written without a leading slash", f"did you mean {text.replace('/', '', 1)}?"
        )
    if text.startswith("="):
        raise Mistake(f"{text}: the name before = is missing; write name=value without spaces")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        raise _unreadable(text) from None


def _bare_word(word: str, registry: Registry) -> Mistake:
    if colon := re.fullmatch(r"([\w./]+):\s*(\S.*)", word):
        return Mistake(f"{word}: no setting", f"did you mean {colon[1]}={colon[2]}?")
    if word in registry.groups:
        return Mistake(f"{word}: no choice", f"did you mean {word}=...? {_all_options(registry, word)}")
    options = [f"{g}={o}" for g, all_ in registry.groups.items() for o in all_]
    near = [full for full in options if full.split("=")[1] == word]
    near = near or [full for full in options if nearest(word, [full.split("=")[1]])][:3]
    if not near and re.fullmatch(r"\w+(\.\w+)*", word):
        near = [f"{word}=..."]
    hint = f"did you mean {' or '.join(near)}?" if near else "write name=value, without spaces around ="
    return Mistake(f"{word}: neither a choice nor a setting", hint, "`python run.py --help` lists them with examples")


def _unreadable(text: str) -> Mistake:
    key, _, value = text.partition("=")
    if value.startswith("="):
        return Mistake(f"{text}: one = too many", f"did you mean {key}={value.lstrip('=')}?")
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            missing = f"{value}{closing}" if value.count(opening) > value.count(closing) else f"{opening}{value}"
            return Mistake(f"{text}: unbalanced {opening}{closing}", f"did you mean '{key}={missing}'?")
    if "/" in key and "." in key:
        return Mistake(f"{text}: a setting is written with dots", f"did you mean {key.replace('/', '.')}={value}?")
    quoted = value.replace("'", "")
    return Mistake(
        f"{text}: cannot be read",
        f"text with special characters is quoted twice, for the shell too: \"{key}='{quoted}'\"",
    )


def check_group(override: Override, registry: Registry) -> None:
    """Raises Mistake where a choice names an unknown group or option; settings pass."""
    group, given = override.key_or_group, str(override.input_line)
    if group not in registry.groups:
        _check_no_group(override, registry)
        return
    if override.is_delete():
        if registry.takes_list(group):
            raise Mistake(f"{given}: a list is emptied, not deleted", f"did you mean {group}=[]?")
        return
    if override.is_add() and group in registry.defaults:
        raise Mistake(f"{given}: {group} is there already", f"did you mean {given.lstrip('+')}?")
    value = override.value()
    if isinstance(value, list) and not registry.takes_list(group) and len(value) != 1:
        raise Mistake(f"{given}: {group} takes one choice, not a list", _all_options(registry, group))
    for option in value if isinstance(value, list) else [value]:
        if option not in registry.groups[group]:
            others = [other for other in value if other != option] if isinstance(value, list) else []
            raise _unknown_option(group, option, given, [str(other) for other in others], registry)


def _unknown_option(group: str, option: object, given: str, others: list[str], registry: Registry) -> Mistake:
    every = _all_options(registry, group)
    if str(option).lower() in ("none", "null", ""):
        none = "none is the default: leave it out" if registry.defaults.get(group, "") is None else ""
        return Mistake(
            f"{given}: no choice", f"did you mean {group}=[]?" if registry.takes_list(group) else none, every
        )
    if isinstance(option, dict):
        return Mistake(f"{given}: a group is chosen by name", every, f"settings are given like {group}.name=value")
    write = f"{group}=[{','.join([*others, '{}'])}]" if registry.takes_list(group) else f"{group}={{}}"
    wrong = f"{given}: {group} has no {option}" if given != f"{group}={option}" else f"{given}: no such choice"
    return Mistake(wrong, suggest(str(option), registry.groups[group], write, ""), every)


def _check_no_group(override: Override, registry: Registry) -> None:
    name, given = override.key_or_group, str(override.input_line)
    if name.startswith("hydra"):
        return
    parent = next((g for g in registry.groups if name.startswith(f"{g}/")), None)
    if parent is not None:
        option = f"{name.removeprefix(f'{parent}/')}/{override.value()}"
        raise Mistake(f"{given}: {name} is no group", suggest(option, registry.groups[parent], f"{parent}={{}}"))
    slashed = name.replace(".", "/")
    if "." in name and slashed in registry.groups and isinstance(override.value(), str):
        raise Mistake(f"{given}: a group is written with a slash", f"did you mean {slashed}={override.value()}?")
    if "/" in name or override.package is not None:
        raise Mistake(f"{given}: {name} is no group", suggest(name, registry.groups, "{}=...", "groups: {}"))


def _all_options(registry: Registry, group: str) -> str:
    several = ", several in [ ]" if registry.takes_list(group) else ""
    return f"{group}: {', '.join(registry.groups[group])}{several}"


def check_no_sweep(override: Override, registry: Registry) -> None:
    """Raises Mistake for `seed=1,2` outside a multirun."""
    if override.is_sweep_override():
        key, given = override.get_key_element(), str(override.input_line)
        value = override.get_value_string()
        as_list = (
            f"a list: '{key}=[{value}]'; " if re.fullmatch(r"[\w.,+-]+", value) and _may_be_list(key, registry) else ""
        )
        raise Mistake(f"{given}: several values", f"{as_list}one run for each: -m {given}; a text: \"{key}='{value}'\"")


def _may_be_list(key: str, registry: Registry) -> bool:
    return key not in registry.groups or registry.takes_list(key)


def alternatives(override: Override, registry: Registry) -> list[Override]:
    if not override.is_sweep_override():
        return [override]
    key, swept = override.get_key_element(), override.value()
    if isinstance(swept, IntervalSweep):
        values = [str(swept.start), str(swept.end)]
    elif isinstance(swept, Glob):
        values = swept.filter(registry.groups.get(override.key_or_group, []))
    else:
        values = [*islice(override.sweep_string_iterator(), SWEEP_LIMIT)]
    if not values:
        raise Mistake(f"{override.input_line}: a sweep over nothing")
    return [OverridesParser.create().parse_override(f"{key}={value}") for value in values]

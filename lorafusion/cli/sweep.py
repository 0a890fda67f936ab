"""Checks the jobs of a sweep before the first begins.

Every alternative is tried alone, of seeds, rates and other plain numbers one of a type. Then those that bear on
conditioning are tried with each other, for time_lora and process=edm fail together only. Composing a job takes a sixth
of a second.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any, Protocol

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lorafusion.cli.mistake import Mistake
from lorafusion.cli.overrides import alternatives, parse
from lorafusion.cli.registry import Registry
from lorafusion.cli.strategies import facts, refusal

LIMIT = 256  # combinations that are tried; of a larger sweep, the alternatives alone
BEARING = ("backbone", "conditioning", "process", "data")  # settings whose numbers are each tried
NAMED = 3  # bad jobs that an answer names

Choice = tuple[int, ...]  # which alternative of each override


class Composing(Protocol):
    registry: Registry

    def check(self, job: list[Override], to_run: bool) -> DictConfig: ...


def is_multirun(overrides: Sequence[Override], flag: bool, registry: Registry) -> bool:
    """Whether it is asked for, by -m, by hydra.mode, or by a choice that sets hydra.mode, as sweep=... does."""
    asked = [str(o.value()).upper() for o in overrides if o.key_or_group == "hydra.mode"]
    if asked:
        return asked[-1] == "MULTIRUN" or flag
    return flag or any(hydra.get("mode") == "MULTIRUN" for hydra in _of_hydra(overrides, registry))


def swept(overrides: Sequence[Override], registry: Registry) -> list[Override]:
    """With the parameters of hydra.sweeper that a choice brings, where the user gives no other value of them."""
    given = {o.key_or_group for o in overrides}
    params: dict[str, Any] = {}
    for hydra in _of_hydra(overrides, registry):
        params |= (hydra.get("sweeper") or {}).get("params") or {}
    return [*(parse(f"{k}={v}", registry) for k, v in params.items() if k.lstrip("+~") not in given), *overrides]


def _of_hydra(overrides: Sequence[Override], registry: Registry) -> Iterator[dict[str, Any]]:
    """What the files of chosen options set of Hydra itself."""
    for override in overrides:
        group = override.key_or_group
        for option in alternatives(override, registry) if group in registry.groups else ():
            if option.value() in registry.groups[group]:
                yield registry.read(registry.file(group, str(option.value()))).get("hydra") or {}


def check_jobs(overrides: list[Override], composer: Composing) -> None:
    """Raises the Mistake of a job; where conditioning cannot work in some of them, one that names these."""
    choices = [alternatives(override, composer.registry) for override in overrides]
    first: Choice = (0,) * len(choices)
    composed: dict[Choice, DictConfig] = {first: composer.check(_job(choices, first), to_run=True)}
    bearing = set()
    for i, choice in enumerate(choices):
        for k in unlike(choice):
            other = (*first[:i], k, *first[i + 1 :])
            composed[other] = composer.check(_job(choices, other), to_run=True)
            if "${" in str(choice[k].input_line) or facts(composed[other]) != facts(composed[first]):
                bearing.add(i)
    together = [range(len(choice)) if i in bearing else (0,) for i, choice in enumerate(choices)]
    for chosen in product(*together) if prod(map(len, together)) <= LIMIT else ():
        if chosen not in composed:
            composed[chosen] = composer.check(_job(choices, chosen), to_run=True)
    refused = {chosen: reason for chosen, cfg in composed.items() if (reason := refusal(cfg))}
    if refused:
        raise _impossible(refused, choices, sorted(bearing))


def unlike(choice: list[Override]) -> Iterator[int]:
    """The alternatives but the first that may be wrong where the first is right: of plain numbers, one of each type."""
    key = choice[0].key_or_group.lstrip("+~")
    kinds = {type(choice[0].value())} & {int, float} if not key.startswith(BEARING) else set()
    for k, other in list(enumerate(choice))[1:]:
        kind = type(other.value())
        if kind not in kinds:
            yield k
        if kind in (int, float) and not key.startswith(BEARING):
            kinds.add(kind)


def _job(choices: list[list[Override]], chosen: Choice) -> list[Override]:
    return [choice[k] for choice, k in zip(choices, chosen, strict=True)]


def _impossible(refused: dict[Choice, str], choices: list[list[Override]], bearing: list[int]) -> Mistake:
    """Which points of the grid cannot work, why the first cannot, and how to leave them out."""
    reason = next(iter(refused.values()))
    bearing = [i for i in bearing if not _all_alike(refused, i, len(choices[i]))]
    points = dict.fromkeys(
        " ".join(str(choices[i][chosen[i]].input_line) for i in bearing if len(choices[i]) > 1) for chosen in refused
    )
    named = "; ".join([*points][:NAMED])
    more = f" and {len(points) - NAMED} more" if len(points) > NAMED else ""
    if not named:
        return Mistake(*reason.split("; ", 1))
    return Mistake(
        f"no job can run with {named}{more}",
        reason,
        "a grid has no holes: sweep these apart, each -m with the choices that go together",
    )


def _all_alike(refused: dict[Choice, str], i: int, count: int) -> bool:
    """Whether every alternative of override ``i`` is refused wherever one is, so that it is not to blame."""
    return all((*chosen[:i], k, *chosen[i + 1 :]) in refused for chosen in refused for k in range(count))

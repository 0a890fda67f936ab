"""Compares the values of a composed configuration with the signatures of the classes that they go to."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorafusion.cli.interpolations import broken
from lorafusion.cli.keys import check_added_root
from lorafusion.cli.mistake import Mistake, nearest, suggest
from lorafusion.cli.registry import Registry
from lorafusion.cli.signature import NoSuchTarget, Parameter, Signature, signature
from lorafusion.cli.tree import at, calls, plain, unresolved
from lorafusion.cli.values import Type, instead, like, literal, read, show


@dataclass
class Contents:
    """cfg: what was composed. overrides: the user's, each of one value. base: composes without the settings of them."""

    cfg: DictConfig
    overrides: list[Override]
    base: Callable[[], DictConfig]
    registry: Registry
    typed: set[str] = field(default_factory=set)  # settings that an annotation describes

    def __post_init__(self):
        self.written = unresolved(self.cfg)
        self.given = {o.key_or_group: str(o.input_line) for o in self.overrides}

    def check(self) -> None:
        """Raises the Mistake that concerns what the user wrote; if none does, the first."""
        found = [*broken(self.cfg, self.written, self.given)]
        for path, node in calls(self.cfg):
            found += self._call(path, node)
        found.sort(key=lambda pair: pair[0] not in self.given)  # stable: the user's own first
        if found:
            raise found[0][1]
        self._check_listed()
        self._check_untyped()

    def _call(self, path: str, node: DictConfig) -> Iterator[tuple[str, Mistake]]:
        """Mistakes in what goes to the class of ``node``."""
        target, where = str(node["_target_"]), f"{path}._target_"
        try:
            call = signature(target)
        except NoSuchTarget as error:
            wrong = f"{self.given.get(where, f'{where}={target}')}: there is no {target}"
            yield where, Mistake(wrong, suggest(error.missing, error.names, error.write, ""))
            return
        for key in [key for key in node if not str(key).startswith("_")] if call else ():
            assert call is not None
            if key in call.parameters:
                yield from self._value(f"{path}.{key}", node, str(key), call, call.parameters[str(key)])
            elif not call.open:
                yield f"{path}.{key}", self._unknown_argument(path, str(key), node, call)

    def _unknown_argument(self, path: str, key: str, node: DictConfig, call: Signature) -> Mistake:
        setting = f"{path}.{key}"
        value = self.given.get(setting, "=").partition("=")[2]
        plus = "" if any(name in node for name in nearest(key, call.parameters)) else "+"
        write = f"{plus}{path}.{{}}={value}"
        wrong = f"{self.given.get(setting, setting)}: {call.node.name} takes no {key}"
        return Mistake(wrong, suggest(key, call.parameters, write, "it takes {}"))

    def _value(
        self, setting: str, node: DictConfig, key: str, call: Signature, parameter: Parameter
    ) -> Iterator[tuple[str, Mistake]]:
        wanted = read(parameter.annotation, parameter.module)
        if wanted is None:
            return
        setting = self._source(setting)
        self.typed.add(setting)
        try:
            value = plain(node[key])
        except OmegaConfBaseException:
            return  # missing or unresolved: said elsewhere
        if value is None and wanted.objects and setting not in self.given:
            return  # not chosen: the task may not need it
        if not wanted.fits(value):
            remark = call.remark(key)
            yield (
                setting,
                self._wrong_value(setting, value, wanted, f"{call.node.name}.{key}: {remark}" if remark else ""),
            )

    def _source(self, setting: str) -> str:
        """The setting that ``setting: ${...}`` merely repeats, or itself."""
        while found := re.fullmatch(r"\$\{(\w+(?:\.\w+)*)\}", str(at(self.written, setting))):
            setting = found[1]
        return setting

    def _wrong_value(self, setting: str, value: Any, wanted: Type, remark: str = "") -> Mistake:
        wrong = f"{self.given.get(setting, f'{setting}={show(value)}')}: should be {wanted.name}"
        near = [show(other) for other in instead(value, wanted)]
        near = near or nearest(show(value), [show(choice) for choice in wanted.choices])
        hint = ""
        if near:
            hint = f"did you mean {' or '.join(f'{setting}={_for_shell(other)}' for other in near)}?"
        elif (default := self._default(setting)) is not None and wanted.fits(default):
            hint = f"for example {setting}={_for_shell(show(default))}, the default"
        return Mistake(wrong, hint, remark)

    def _default(self, setting: str) -> Any:
        try:
            return plain(OmegaConf.select(self.base(), setting))
        except OmegaConfBaseException:
            return None  # a default that does not resolve serves as no example

    def _check_listed(self) -> None:
        """Settings whose values a remark in their file lists."""
        for key in self.given:
            value = OmegaConf.select(self.cfg, key, throw_on_missing=False)
            if isinstance(value, str) and (listed := self.registry.listed_values(key)) and value not in listed:
                raise self._wrong_value(key, value, literal(tuple(listed)))

    def _check_untyped(self) -> None:
        """Settings that no annotation describes are compared with the kind of their default."""
        for override in self.overrides:
            key = override.key_or_group
            chosen = key in self.cfg.hydra.runtime.choices or "/" in key  # a group
            if chosen or key in self.typed or key.startswith("hydra.") or override.is_delete():
                continue
            if override.is_add() or override.is_force_add():
                check_added_root(override, self.base())
            wanted = like(self._default(key))
            value = plain(OmegaConf.select(self.cfg, key, throw_on_missing=False))
            if wanted is not None and not wanted.fits(value):
                raise self._wrong_value(key, value, wanted)


def _for_shell(text: str) -> str:
    """A shell swallows quotes that are not quoted."""
    return f'"{text}"' if "'" in text else text

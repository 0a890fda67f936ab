"""Checks a command line before Hydra starts: nothing is imported, nothing is written, a mistake raises Mistake.

The configuration is composed as Hydra would. If that fails, the overrides are compared with what is there; if it
succeeds, its values are compared with the signatures of the classes that they go to.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lorafusion.cli.contents import Contents
from lorafusion.cli.keys import check_keys, composition_mistake, is_there, settings_of
from lorafusion.cli.mistake import Mistake, suggest
from lorafusion.cli.overrides import check_group, check_no_sweep, parse
from lorafusion.cli.ready import check_ready
from lorafusion.cli.registry import Registry
from lorafusion.cli.strategies import refusal
from lorafusion.cli.sweep import check_jobs, is_multirun, swept


def check(arguments: Sequence[str], conf: Path) -> list[str]:
    """The arguments as Hydra takes them. Raises Mistake if ``run.py arguments`` cannot work.

    conf: the configuration folder.
    """
    flags = read_flags(arguments)
    if flags.hydra_help or flags.info or flags.shell_completion or flags.experimental_rerun:
        return [*arguments]
    extra = [Path(flags.config_dir).resolve()] if flags.config_dir else []
    if extra and not extra[0].is_dir():
        raise Mistake(f"--config-dir {flags.config_dir}: there is no such folder")
    registry = Registry(conf, *extra)
    overrides = [parse(text, registry) for text in flags.overrides]
    with initialize_config_dir(str(conf), version_base="1.3"):
        composer = Composer(registry, flags.config_name or "config", [f"hydra.searchpath=[file://{f}]" for f in extra])
        if is_multirun(overrides, flags.multirun, registry) and flags.cfg is None:
            check_jobs(swept(overrides, registry), composer)
            later = composer.brought_later([o for o in overrides if not o.is_sweep_override()])
            return [f"++{argument}" if argument in later else argument for argument in arguments]
        else:
            cfg = composer.check(overrides, to_run=flags.cfg is None)
            if reason := refusal(cfg):
                raise Mistake(*reason.split("; ", 1))
            return [*arguments]


def read_flags(arguments: Sequence[str]) -> Any:
    """Hydra's own flags (-m, --cfg, ...). Raises Mistake for a flag that there is not."""
    parser = get_args_parser()

    def error(message: str) -> Any:
        raise Mistake(message, "settings are written without dashes: seed=1; `python run.py --help`")

    parser.error = error
    flags, unknown = parser.parse_known_args([*arguments])
    for text in unknown:
        if not text.startswith("-"):
            raise Mistake(f"{text}: stands behind a flag", "flags come before or after all settings: -m seed=0,1")
        if "=" in text:
            raise Mistake(f"{text}: settings are written without dashes", f"did you mean {text.lstrip('-')}?")
        known = [flag for action in parser._actions for flag in action.option_strings]
        raise Mistake(f"{text}: no such flag", suggest(text, known, every="`python run.py --help` explains"))
    return flags


class Composer:
    """Composes jobs and checks each."""

    def __init__(self, registry: Registry, config_name: str, always: list[str]):
        self.registry, self.config_name, self.always = registry, config_name, always

    def check(self, job: list[Override], to_run: bool) -> DictConfig:
        """Raises the Mistake in one job; else what it is composed to."""
        for override in job:
            check_no_sweep(override, self.registry)
            check_group(override, self.registry)
        choices = [o for o in job if self._is_choice(o)]
        settings = [o for o in job if not self._is_choice(o)]
        try:
            cfg = self._compose(job)
        except Exception as error:  # whatever Hydra says, it is said in three lines
            check_keys(settings, self._base(choices), self.registry)
            raise composition_mistake(error, choices, self.registry) from None
        Contents(cfg, job, cache(lambda: self._base(choices)), self.registry).check()
        if to_run:
            check_ready(cfg, self.registry)
        return cfg

    def brought_later(self, fixed: list[Override]) -> set[str]:
        """Of what every job of a sweep has, the settings that only a swept choice brings, as they were written.

        Hydra begins a sweep by composing what all its jobs have; a setting that is not there yet has to say ``++``.
        """
        base = self._base([o for o in fixed if self._is_choice(o)])
        known = [*settings_of(base), *settings_of(base, hydra=True)]
        plain = [o for o in fixed if not (self._is_choice(o) or o.is_add() or o.is_force_add() or o.is_delete())]
        return {str(o.input_line) for o in plain if not is_there(base, o.key_or_group, known)}

    def _is_choice(self, override: Override) -> bool:
        return override.key_or_group in self.registry.groups or "/" in override.key_or_group

    def _base(self, choices: list[Override]) -> DictConfig:
        """The configuration without any override of a setting."""
        try:
            return self._compose(choices)
        except Exception as error:
            raise composition_mistake(error, choices, self.registry) from None

    def _compose(self, overrides: list[Override]) -> DictConfig:
        lines = [str(override.input_line) for override in overrides]
        return compose(self.config_name, [*self.always, *lines], return_hydra_config=True)

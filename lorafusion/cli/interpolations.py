"""Names the interpolations ${...} of a configuration that do not resolve."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from lorafusion.cli.keys import settings_of
from lorafusion.cli.mistake import Mistake, suggest
from lorafusion.cli.tree import at, walk

_RESOLVERS = ("now", "oc.env", "oc.select", "oc.decode", "oc.create", "oc.dict.keys", "oc.dict.values", "hydra")


def broken(cfg: DictConfig, written: dict[str, Any], given: Mapping[str, str]) -> Iterator[tuple[str, Mistake]]:
    """(setting, mistake) for each. What is ??? is left to ready.py.

    written:  nested dicts of ``cfg``, unresolved.
    given:    the user's text for a setting.
    """
    for path in [*(path for path, _, _ in walk(cfg)), "hydra.run.dir"]:
        try:
            OmegaConf.select(cfg, path, throw_on_missing=False)
        except (MissingMandatoryValue, InterpolationToMissingValueError):
            continue
        except OmegaConfBaseException as error:
            text = str(at(written, path))
            if mistake := _mistake(given.get(path, f"{path}={text}"), text, error, cfg):
                yield path, mistake


def _mistake(wrong: str, text: str, error: OmegaConfBaseException, cfg: DictConfig) -> Mistake | None:
    said = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ").strip('"')
    if isinstance(error, InterpolationKeyError):
        missing = said.split("'")[1]
        if missing not in text:
            return None  # it goes through another setting, which is named itself
        return Mistake(f"{wrong}: there is no {missing}", suggest(missing, settings_of(cfg), "${{{}}}", ""))
    if "hydra:" in text:
        return None  # known once the job runs
    if isinstance(error, UnsupportedInterpolationType):
        return Mistake(f"{wrong}: {said}", suggest(said.split()[-1], _RESOLVERS, "${{{}:...}}", "known: {}"))
    return Mistake(f"{wrong}: {said}")

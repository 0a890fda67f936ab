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
from lorafusion.cli.tree import raw, walk

_RESOLVERS = ("now", "oc.env", "oc.select", "oc.decode", "oc.create", "oc.dict.keys", "oc.dict.values", "hydra")


def unresolved(cfg: DictConfig, given: Mapping[str, str]) -> Iterator[tuple[str, Mistake]]:
    """(setting, mistake) for each; given: the user's text for a setting. What is ??? is left to ready.py."""
    for path in [*(path for path, _, _ in walk(cfg)), "hydra.run.dir"]:
        try:
            OmegaConf.select(cfg, path, throw_on_missing=False)
        except (MissingMandatoryValue, InterpolationToMissingValueError):
            continue
        except OmegaConfBaseException as error:
            if mistake := _mistake(cfg, path, error, given):
                yield path, mistake


def _mistake(cfg: DictConfig, path: str, error: Any, given: Mapping[str, str]) -> Mistake | None:
    text = str(raw(cfg, path))
    wrong = given.get(path, f"{path}={text}")
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

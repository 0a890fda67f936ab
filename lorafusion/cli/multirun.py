"""A sweep: its jobs each in a folder of their own, those that are done not done again, a table when it ends.

Hydra calls ``Multirun`` when a sweep begins, in the process that starts the jobs; ``job`` runs around each, in whatever
process its launcher chose. They meet in the sweep's folder alone.
"""

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from lorafusion.cli import apart, same, table, workers
from lorafusion.cli.errors import said_to_user
from lorafusion.cli.mistake import Mistake
from lorafusion.cli.notes import Note, first_process, measured, read_all
from lorafusion.errors import UserError
from lorafusion.files import json_object

_begun: list[tuple[Path, list[Note]]] = []  # the sweep of this process: its folder, its jobs where they are known


class Multirun(Callback):
    """Told by Hydra that a sweep begins. What is wrong ends it here, before the first job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = Path(config.hydra.sweep.dir).absolute()
        planned = [Note(k, str(k), overrides) for k, overrides in enumerate(combinations(config))]
        try:
            check_same(sweep, planned, config)
        except Mistake as mistake:
            print(mistake, file=sys.stderr)
            raise SystemExit(2) from None
        _begun.append((sweep, planned))
        signal.signal(signal.SIGTERM, _end)  # a training run that saves first has its own while it trains
        if not planned:  # Hydra's own sweeper writes it, others do not
            sweep.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, sweep / "multirun.yaml")


def _end(number: int, frame: Any) -> None:
    """Asked to stop between two trainings: not without the table."""
    raise SystemExit(128 + number)


def combinations(config: DictConfig) -> list[list[str]]:
    """The overrides of each job, by number, of a sweep over a grid; [] of a sweeper that decides as it goes."""
    sweeper = config.hydra.sweeper
    if not str(sweeper._target_).endswith("BasicSweeper"):
        return []
    lines = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*lines, *config.hydra.overrides.task])
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def check_same(sweep: Path, planned: list[Note], config: DictConfig) -> None:
    """Raises Mistake where the folder holds jobs of another sweep, or the same and was not to be gone on with."""
    before = {note.job: same.decisive(note.overrides) for note in read_all(sweep)}
    if not before or not planned or "resume" not in config:
        return
    if config.resume is None:
        raise Mistake(
            f"{sweep} holds a sweep already", "resume=auto goes on with it; or choose another hydra.sweep.dir"
        )
    for note in planned:
        was, now = before.get(note.job), same.decisive(note.overrides)
        if was is not None and was != now:
            less, more = (" ".join(sorted(part)) for part in (was - now, now - was))
            made = f"with {less}" + (f", not with {more}" if more else "") if less else f"without {more}"
            raise Mistake(
                f"{sweep}: job {note.job} was made {made}",
                "go on with the sweep that it was, or choose another hydra.sweep.dir",
            )


@contextmanager
def summarised() -> Iterator[None]:
    """Behind a sweep, however it ends: its table. Raises SystemExit(1) where a job failed and nothing else says so."""
    _begun.clear()
    failed = False
    try:
        yield
    finally:
        for sweep, planned in _begun:
            failed = table.conclude(sweep, planned)
    if failed:
        raise SystemExit(1)


def job(task: Callable[[Any], Any], cfg: DictConfig, hydra: DictConfig) -> Any:
    """Run one job. Its errors become one that can travel between processes; their tracebacks are printed here."""
    if not any(o.startswith("paths.run_dir=") for o in hydra.overrides.task):
        cfg.paths.run_dir = hydra.runtime.output_dir
    if not first_process():
        return task(cfg)
    sweep, run = Path(hydra.sweep.dir).absolute(), Path(cfg.paths.run_dir).absolute()
    note = Note(hydra.job.num, os.path.relpath(run, sweep), [*hydra.overrides.task])
    if apart.is_distributed(cfg):
        task = functools.partial(apart.run, hydra=hydra, folder=run)
    with workers.own(hydra.launcher, sweep, run) as (tell, alone):
        tell(f"job {note.job}: begun")
        try:
            value = _once(task, cfg, note, sweep, run)
        except Exception as error:
            said = _told(error)
            note.write(sweep, "failed", said)
            tell(f"job {note.job}: failed, {said}")
            raise CompactHydraException(said) from None
        except BaseException as stop:
            note.write(sweep, "stopped", type(stop).__name__)
            tell(f"job {note.job}: stopped")
            if alone or isinstance(stop, KeyboardInterrupt):
                raise
            raise CompactHydraException("stopped") from None  # its fellows go on
        tell(
            ", ".join([f"job {note.job}: finished", *(f"{k} {float(v):.5g}" for k, v in [*measured(run).items()][:2])])
        )
        return value


def _once(task: Callable[[Any], Any], cfg: DictConfig, note: Note, sweep: Path, run: Path) -> Any:
    """What the job returns, or returned when it was run before and ended well."""
    if cfg.get("resume") == "auto":
        if difference := same.changed(run, cfg):
            raise UserError(f"{run} holds another run, {difference}; choose another hydra.sweep.dir")
        status = json_object(run / "status.json")
        if status.get("state") == "finished":
            print(f"job {note.job}: finished already, in {run}")
            note.returned = status.get("objective")
            note.write(sweep, "finished")
            return note.returned
    note.write(sweep, "running")
    value = task(cfg)
    note.returned = float(value) if isinstance(value, int | float) else None
    note.write(sweep, "finished")
    return value


def _told(error: Exception) -> str:
    """The error in one line, once it has been printed."""
    said = said_to_user(error)
    if said is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exc()
    said = said or " ".join(f"{type(error).__name__}: {error}".split())
    print(f"error: {said}", file=sys.stderr, flush=True)
    return said[:300]

"""The command line around a task: help and mistakes are answered before Hydra starts, and torch is never imported.

Exit codes: 0 done, 1 an error while running, 2 a mistake in the command line, 130 interrupted by the user.
"""

import functools
import gc
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode

from lorafusion.cli import check
from lorafusion.cli.help import help_text
from lorafusion.cli.mistake import Mistake
from lorafusion.errors import UserError

PACKAGES = ("lorafusion", "lightning")  # a setting that they refuse is the user's to put right


def run(main: Callable[[], Any]) -> None:
    """Answer `--help` and mistakes at once, else call ``main``, a function under @hydra.main and beside conf/."""
    conf = Path(inspect.getfile(inspect.unwrap(main))).resolve().parent / "conf"
    arguments = sys.argv[1:]
    gc.disable()  # its passes over what is being composed take a fifth of the time, and find nothing
    try:
        if {"--help", "-h"} & {*arguments}:
            print(help_text(conf, [a for a in arguments if a not in ("--help", "-h")]), flush=True)
            return
        check.check(arguments, conf)
        gc.enable()
        main()
    except Mistake as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns the first into the second
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def job(task: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What a user can put right ends a task with one line and exit code 1; other errors keep their traceback.

    In a multirun every job writes into its own folder below multirun/, unless paths.run_dir was given. Hydra is told
    of an error, so that the job counts as failed and the others run. With HYDRA_FULL_ERROR=1 nothing is shortened.
    """

    @functools.wraps(task)
    def wrapped(cfg: Any) -> Any:
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN and not any(o.startswith("paths.run_dir=") for o in hydra.overrides.task):
            cfg.paths.run_dir = hydra.runtime.output_dir
        try:
            return task(cfg)
        except Exception as error:
            said = said_to_user(error)
            if said is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"error: {said}", file=sys.stderr, flush=True)
            if hydra.mode == RunMode.MULTIRUN:
                raise CompactHydraException(said) from error
            raise SystemExit(1) from error

    return wrapped


def said_to_user(error: BaseException) -> str | None:
    """The line for the user in an error, None if it has none.

    That is a UserError, or what our code or Lightning's raises to refuse a setting while Hydra instantiates it.
    """
    place = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        found = str(error).partition("full_key: ")[2].strip()
        place, error = found or place, error.__cause__
        if type(error).__name__ in ("ValueError", "MisconfigurationException") and _raised_in(error, PACKAGES):
            return " ".join(f"{place}: {error}".removeprefix(": ").split())
    return " ".join(str(error).split()) if isinstance(error, UserError) else None


def _raised_in(error: BaseException, packages: tuple[str, ...]) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).split(".")[0] in packages

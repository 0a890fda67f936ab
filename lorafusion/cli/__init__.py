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
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lorafusion.cli import check, multirun
from lorafusion.cli.errors import said_to_user
from lorafusion.cli.help import help_text
from lorafusion.cli.mistake import Mistake

__all__ = ["job", "run", "said_to_user"]


def run(main: Callable[[], Any]) -> None:
    """Answer `--help` and mistakes at once, else call ``main``, a function under @hydra.main and beside conf/."""
    conf = Path(inspect.getfile(inspect.unwrap(main))).resolve().parent / "conf"
    arguments = sys.argv[1:]
    gc.disable()  # its passes over what is being composed take a fifth of the time, and find nothing
    try:
        if {"--help", "-h"} & {*arguments}:
            print(help_text(conf, [a for a in arguments if a not in ("--help", "-h")]), flush=True)
            return
        sys.argv[1:] = check.check(arguments, conf)
        gc.enable()
        with multirun.summarised():
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

    In a multirun every job writes into its own folder, and one that fails does not end the others (multirun.py).
    With HYDRA_FULL_ERROR=1 nothing is shortened.
    """

    @functools.wraps(task)
    def wrapped(cfg: Any) -> Any:
        hydra = cast(DictConfig, HydraConfig.get())
        if hydra.mode == RunMode.MULTIRUN:
            return multirun.job(task, cfg, hydra)
        try:
            return task(cfg)
        except Exception as error:
            said = said_to_user(error)
            if said is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"error: {said}", file=sys.stderr, flush=True)
            raise SystemExit(1) from error

    return wrapped

"""A job of a sweep in a process of its own, started by the same program as a single run.

A job over several devices needs it: Lightning starts the other processes of such a job by the command line of this one,
so inside a sweep they would run the whole sweep again; it leaves its process group and its variables to the next job;
and where one of these processes fails it kills the one that started them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lorafusion.errors import UserError
from lorafusion.files import json_object

PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)


def is_distributed(cfg: DictConfig) -> bool:
    """Whether Lightning would start other processes: several devices, and no cluster that has started them already."""
    trainer = OmegaConf.select(cfg, "trainer")
    if trainer is None or {"RANK", "SLURM_NTASKS"} & os.environ.keys():
        return False
    devices = trainer.get("devices", 1)
    number = len(devices) if OmegaConf.is_list(devices) else devices
    return str(number) not in ("0", "1")


def run(cfg: DictConfig, *, hydra: DictConfig, folder: Path) -> Any:
    """The job's objective, once it has run. Raises UserError where it failed, SystemExit where it was stopped."""
    more = []
    if (wandb := OmegaConf.select(cfg, "logger.wandb")) is not None and wandb.get("group") is None:
        more = [f"logger.wandb.group='{'/'.join(Path(hydra.sweep.dir).absolute().parts[-2:])[-128:]}'"]
    with subprocess.Popen([*command(hydra, folder), *more]) as process, _signals_for(process):
        process.wait()
    code = process.returncode
    status = json_object(folder / "status.json")
    if code in (130, *(128 + number for number in PASSED_ON)):
        raise SystemExit(code)
    if code:
        raise UserError(str(status.get("error") or f"its process ended with exit code {code}"))
    return status.get("objective")


def command(hydra: DictConfig, folder: Path) -> list[str]:
    """The command line of the single run that is this job."""
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    program = Path(sources["main"]).parent / f"{hydra.job.name}.py"
    more = ["--config-dir", sources["command-line"]] if "command-line" in sources else []
    overrides = [o for o in hydra.overrides.task if not o.startswith("paths.run_dir=")]
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    single = ["hydra.mode=RUN", f"paths.run_dir='{quoted}'", "hydra.output_subdir=null"]
    return [sys.executable, str(program), *more, *overrides, *single]


@contextmanager
def _signals_for(process: subprocess.Popen) -> Iterator[None]:
    """Who asks this process to stop means the job."""
    before = {number: signal.signal(number, lambda n, _: process.send_signal(n)) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

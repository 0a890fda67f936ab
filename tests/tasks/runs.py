"""Training runs for tests: composed as run.py composes them, in processes that can be killed.

Processes are forked from a server that has imported everything, so a run starts in a fraction of a second.
"""

import csv
import multiprocessing
import os
import signal
import time
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

CONF = Path(__file__).parents[2] / "conf"
TINY = (
    "data=synthetic",
    "data.resolution=8",
    "data.channels=1",
    "data.batch_size=16",
    "backbone.widths=[2,2,4]",
    "backbone.attn_resolutions=[2,4]",
    "conditioning.attn.uc_lora.mlp=[8]",
    "trainer.log_every_n_steps=1",
    "validate_every_images=160",
)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]  # a task does not see it either
    return cfg


def tiny(folder: Path, *overrides: str, callbacks: tuple[str, ...] = ("ema", "checkpoint")) -> tuple[str, ...]:
    """Overrides of a run of a second or two that writes into ``folder``; checkpoints are saved at every step."""
    chosen = [f"callbacks=[{','.join(callbacks)}]"]
    if "checkpoint" in callbacks:
        chosen.append("callbacks.checkpoint.every_images=16")
    if "ema" in callbacks:
        chosen.append("callbacks.ema.halflife_images=100")
    return (*TINY, *chosen, f"paths.run_dir={folder}", f"paths.data_dir={folder.parent / 'data'}", *overrides)


def run(overrides: tuple[str, ...]) -> None:
    """The body of a run's process."""
    import torch

    if multiprocessing.current_process().name != "MainProcess":
        multiprocessing.set_start_method("fork", force=True)  # the loader's workers are children, as in a real run

    torch.set_num_threads(1)
    cfg = composed(*overrides)
    from hydra.utils import get_method

    get_method(cfg.task._target_)(cfg)


def start(overrides: tuple[str, ...]) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    process = context.Process(target=run, args=(overrides,))
    process.start()
    return process


def finish(overrides: tuple[str, ...], timeout: float = 120) -> int:
    """Run to the end; the exit code."""
    process = start(overrides)
    process.join(timeout)
    assert process.exitcode is not None, f"still running after {timeout} s"
    return process.exitcode


def signal_at(overrides: tuple[str, ...], step: int, number: int = signal.SIGKILL, timeout: float = 120) -> int | None:
    """Start a run and send it a signal once it has logged ``step``; its exit code."""
    folder = Path(next(o for o in overrides if o.startswith("paths.run_dir=")).partition("=")[2])
    process = start(overrides)
    until = time.monotonic() + timeout
    while process.is_alive() and time.monotonic() < until and last_step(folder) < step:
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.join(timeout)
    return process.exitcode


def last_step(folder: Path) -> int:
    rows = losses(folder)
    return max(rows, default=-1)


def losses(folder: Path) -> dict[int, str]:
    """step -> loss, to the last digit."""
    file = folder / "metrics.csv"
    if not file.is_file():
        return {}
    with file.open(newline="") as lines:
        return {int(r["step"]): r["loss"] for r in csv.DictReader(lines) if r.get("loss")}

"""A Weights & Biases run for each job; offline, with one line of advice, where there is no key."""

import os
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from rich import print


def wandb_logger(
    folder: str,
    project: str = "lorafusion",
    name: str | None = None,
    group: str | None = None,
    job_type: str = "train",
    tags: list[str] | None = None,
    mode: str | None = None,
    **settings: Any,
) -> WandbLogger:
    """folder: of the run; everything W&B stages stays inside it.
    mode: online, offline; None = online if there is a key.

    Every metric is drawn over ``nimg``, the images seen.
    """
    os.environ["WANDB_DATA_DIR"] = str(Path(folder) / "wandb" / "data")  # else the home directory
    if mode is None:
        mode = "online" if _has_key() else "offline"
        if mode == "offline":
            print("W&B: no key, so this run is kept offline; `wandb login`, then `wandb sync` its folder")
    Path(folder).mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        save_dir=folder,
        project=project,
        name=name,
        group=group,
        job_type=job_type,
        tags=tags or [],
        offline=mode == "offline",
        **settings,
    )
    logger.experiment.define_metric("nimg", hidden=True)
    logger.experiment.define_metric("*", step_metric="nimg")
    return logger


def _has_key() -> bool:
    return bool(os.environ.get("WANDB_API_KEY") or _saved_key())


def _saved_key() -> str | None:
    try:
        return wandb.api.api_key
    except Exception:  # whatever W&B's own look-up trips over means that there is no key to be had
        return None

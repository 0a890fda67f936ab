"""The data that a run was trained on, for tasks that compare with it."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64
from omegaconf import DictConfig, OmegaConf

from lorafusion.tasks.run_folder import check_known


def data_of(file: Path, cfg: DictConfig) -> DictConfig:
    """The dataset of the run in whose folder ``file`` lies; outside of any the one of the command line."""
    for folder in [file, *file.parents][:4]:  # the run itself .. <run>/samples/<checkpoint>/samples.npz
        if (saved := folder / "config.yaml").is_file():
            run = OmegaConf.load(saved)
            if "data" in run:
                check_known(run.data, saved)
                run.data.cache_dir = cfg.paths.data_dir  # the run's own may be another machine's
                return run.data
    return cfg.data


def choose(total: int, n: int) -> Int64[np.ndarray, "N"]:
    """Numbers of n of so many images, or of all: always the same, in order."""
    return np.sort(np.random.default_rng(0).permutation(total)[:n])

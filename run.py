"""lorafusion on the command line; `python run.py --help` explains."""

from typing import Any

import hydra
from omegaconf import DictConfig

from lorafusion import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@cli.job
def main(cfg: DictConfig) -> Any:
    return hydra.utils.get_method(cfg.task._target_)(cfg)


if __name__ == "__main__":
    cli.run(main)

"""With logger=wandb, what task=evaluate measured becomes a W&B run of job type evaluate, in the group of its training.

It has the name and the configuration of the run that was judged, so dashboards group both alike.
"""

from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lorafusion.logger import closing
from lorafusion.logger.sweep_group import sweep_group
from lorafusion.report.measured import measured


def log(cfg: DictConfig, subject: Path, out: Path) -> None:
    """subject: the checkpoint or the samples. out: the folder whose metrics.json holds the numbers."""
    if "wandb" not in (cfg.get("logger") or {}):
        return
    values, _ = measured(out)
    run = _run_of(subject)
    config: dict[str, Any] = {} if run is None else plain(run / "config.yaml")
    config |= {"resume": None, "evaluated": {"subject": str(subject), "metric": plain(cfg.metric)}}
    group = cfg.logger.wandb.group or (run and _group(run, config))
    more = {"folder": str(out), "job_type": "evaluate", "group": group, "checkpoints": False, "samples": False}
    logger = instantiate(cfg.logger.wandb, **more, _convert_="all")
    with closing([logger], lambda: 0):
        logger.log_hyperparams(config)
        row = {value.name: value.value for value in values}
        logger.log_metrics({**row, "nimg": float(max((value.nimg or 0 for value in values), default=0))})


def plain(source: Path | DictConfig) -> dict[str, Any]:
    """Nothing of it is resolved: somebody else may have written it."""
    return cast(dict, OmegaConf.to_container(OmegaConf.load(source) if isinstance(source, Path) else source))


def _run_of(subject: Path) -> Path | None:
    """The folder of the run that a checkpoint, or samples in their folders, belong to."""
    return next((folder for folder in (subject, *subject.parents)[:4] if (folder / "config.yaml").is_file()), None)


def _group(run: Path, config: dict[str, Any]) -> str | None:
    """As its training had it."""
    chosen = config.get("logger", {}).get("wandb", {}).get("group")
    return chosen or (sweep_group(run.parent) if (run.parent / "multirun.yaml").is_file() else None)

"""Judge what a run made, its samples or its model: a metric's ``judges`` says which, and a file of that name how."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, open_dict

from lorafusion.errors import UserError
from lorafusion.tasks import evaluate_features, evaluate_log, evaluate_model, evaluate_samples
from lorafusion.tasks.run_data import data_of
from lorafusion.tasks.run_folder import find_checkpoint

JUDGES = {
    "samples": evaluate_samples.judge,
    "features": evaluate_features.judge,
    "model": evaluate_model.judge,
}
OF_DRAWING = {"seeds": None, "sets": 1, "label": None, "guidance": 1.0}  # settings, and what they are if nobody asks


def evaluate(cfg: DictConfig) -> None:
    if (cfg.samples is None) == (cfg.ckpt is None):
        raise UserError(
            "task=evaluate judges either samples=..., images that lie there, or ckpt=..., whose images it draws: "
            + ("neither is given" if cfg.ckpt is None else "both are given")
        )
    subject = _subject(cfg)  # a checkpoint is verified whole for it, so once
    with open_dict(cfg):
        cfg.data = data_of(subject, cfg)  # a metric may look at it
    metric = instantiate(cfg.metric, _convert_="all")
    check_asked(cfg, metric)
    out = JUDGES[metric.judges](cfg, metric)
    if out is not None:  # of several processes the first
        evaluate_log.log(cfg, subject, out)
        print(out)


def check_asked(cfg: DictConfig, metric: Any) -> None:
    """Raises UserError for what this metric does not judge, and for settings that nothing would read."""
    takes = {"samples": ("samples",), "model": ("ckpt",), "features": ("samples", "ckpt")}[metric.judges]
    given = "samples" if cfg.ckpt is None else "ckpt"
    if given not in takes:
        raise UserError(f"metric={metric.name} judges {takes[0]}=..., and {given}={cfg[given]} was given")
    asked = [key for key, default in OF_DRAWING.items() if cfg[key] != default]
    if asked and not (metric.judges == "features" and given == "ckpt"):
        raise UserError(f"{asked[0]}={cfg[asked[0]]}: metric={metric.name} of {given}=... draws no images")


def _subject(cfg: DictConfig) -> Path:
    """What is judged, or the first of several."""
    if cfg.ckpt is not None:
        return find_checkpoint(cfg.ckpt)
    first = cfg.samples[0] if isinstance(cfg.samples, ListConfig) else cfg.samples
    return Path(first).expanduser().absolute()

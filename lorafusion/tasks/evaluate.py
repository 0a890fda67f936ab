"""Judge what a run made, its samples or its model: a metric's ``judges`` says which, and a file of that name how."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, open_dict

from lorafusion.tasks import evaluate_features, evaluate_model, evaluate_samples
from lorafusion.tasks.run_data import data_of

JUDGES = {
    "samples": evaluate_samples.judge,
    "features": evaluate_features.judge,
    "model": evaluate_model.judge,
}


def evaluate(cfg: DictConfig) -> None:
    subject = cfg.samples[0] if isinstance(cfg.samples, ListConfig) else cfg.samples or cfg.ckpt
    with open_dict(cfg):
        cfg.data = data_of(Path(subject).expanduser().absolute(), cfg)  # a metric may look at it
    metric = instantiate(cfg.metric, _convert_="all")
    JUDGES[metric.judges](cfg, metric)

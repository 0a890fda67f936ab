"""Judge what a run made, its samples or its model: a metric's ``judges`` says which, and a file of that name how."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from lorafusion.tasks import evaluate_features, evaluate_model, evaluate_samples

JUDGES = {
    "samples": evaluate_samples.judge,
    "features": evaluate_features.judge,
    "model": evaluate_model.judge,
}


def evaluate(cfg: DictConfig) -> None:
    metric = instantiate(cfg.metric, _convert_="all")
    JUDGES[metric.judges](cfg, metric)

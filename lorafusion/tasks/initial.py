"""A denoiser as its training begins: the weights that follow from the run's seed."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.tasks import run_folder, weights


def build(cfg: DictConfig) -> Denoiser:
    """Of a run's config; ``init_from`` is not read yet."""
    torch.manual_seed(cfg.seed)
    return instantiate(cfg.denoiser, _convert_="all")


def start_from(denoiser: Denoiser, file: str) -> str:
    """Read what ``init_from`` names; returns what was done."""
    return weights.start_from(denoiser.net, run_folder.find_checkpoint(file))


def rebuilt(path: Path, cfg: DictConfig) -> tuple[Denoiser | None, str]:
    """As training towards checkpoint ``path`` began, by its run's ``cfg``, and in words where that is not known."""
    if path.suffix == weights.EXPORT:
        return None, "an export does not say how its training began: no maps of that"
    with torch.random.fork_rng(devices=[]):
        denoiser = build(cfg)
    if cfg.get("init_from"):
        try:
            start_from(denoiser, cfg.init_from)
        except UserError as error:
            return None, f"how this run's training began is not known any more: init_from: {error}"
    return denoiser.eval(), ""

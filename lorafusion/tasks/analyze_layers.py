"""Look at the LoRA layers of one run, as they are and as its training began."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from lorafusion.analysis import Found
from lorafusion.errors import UserError
from lorafusion.tasks import initial, run_folder


def look(cfg: DictConfig, analysis: Any, paths: list[Path]) -> Found:
    """Raises UserError for several runs."""
    if len(paths) > 1:
        raise UserError(f"ckpt: analysis={analysis.name} looks at one run at a time; {len(paths)} were given")
    path = paths[0]
    run = run_folder.saved_config(path)
    device = run_folder.device(cfg.device)
    denoiser = run_folder.restore(path, run, ema=cfg.ema).to(device)
    began, unknown = initial.rebuilt(path, run)
    chosen = cfg.sampler if cfg.sampler is not None else run.sampler
    sampler = instantiate(chosen, _convert_="all")
    found = analysis(denoiser, None if began is None else began.to(device), sampler)
    averaged = "averaged" if cfg.ema else "raw"
    heading = f"{path}, {averaged} weights ({denoiser.images_seen:,} images seen)"
    found.said[:0] = [heading, *([unknown] if unknown else [])]
    return found

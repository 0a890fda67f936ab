"""Draw images from a trained denoiser, of a run or an export, one for each seed; as many as one likes."""

from pathlib import Path

from omegaconf import DictConfig

from lorafusion.tasks import run_folder
from lorafusion.tasks.drawer import Drawer
from lorafusion.tasks.seeds import parse_seeds


def sample(cfg: DictConfig) -> None:
    drawer = Drawer(cfg)
    out = Path(cfg.out).expanduser().absolute() if cfg.out else run_folder.results(drawer.path, "samples")
    done = drawer.write(parse_seeds(cfg.seeds, cfg.n), out, cfg.formats)
    if drawer.rank == 0:
        print(done)
        print(out)

"""Look at images that one run or several draw along lines of labels."""

from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from lorafusion.analysis import Found
from lorafusion.analysis.image_rows import Rows, Subject, check_alike, draw, probabilities, tell
from lorafusion.errors import UserError
from lorafusion.metrics.features import Extractor
from lorafusion.progress import bar
from lorafusion.tasks import run_folder
from lorafusion.tasks.run_data import data_of
from lorafusion.tasks.seeds import parse_seeds, written


def look(cfg: DictConfig, analysis: Rows, paths: list[Path]) -> Found:
    device = run_folder.device(cfg.device)
    subjects = dict(zip(captions(paths), (restored(path, cfg, device) for path in paths), strict=True))
    num_classes = check_alike(subjects)
    rows, seeds = analysis.rows(num_classes), parse_seeds(cfg.seeds, 1)
    for key in ("shown", "micro_batch"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: at least 1")
    extractor = classifier(cfg, paths[0], device)
    images, seen = {}, {}
    for name, subject in subjects.items():
        with bar(f"drawing, {name}", unit="images") as report:
            images[name] = draw(subject, rows, seeds, cfg.micro_batch, report)
        if extractor is not None:
            seen[name] = probabilities(extractor, images[name], num_classes, device)
    found = tell(rows, seeds, images, seen, cfg.shown)
    found.numbers |= {"seeds": written(seeds), "micro_batch": cfg.micro_batch, "device": device.type}
    found.said[:0] = [*heading(subjects, paths, cfg.ema)]
    if extractor is None:
        found.said.append("no classifier was asked, so there are no curves: metric/extractor=digits, or cifar_resnet")
    else:
        found.numbers["extractor"] = {"name": extractor.name, "weights_sha256": extractor.weights_sha256}
    return found


def restored(path: Path, cfg: DictConfig, device: torch.device) -> Subject:
    run = run_folder.saved_config(path)
    denoiser = run_folder.restore(path, run, ema=cfg.ema).to(device)
    return Subject(denoiser, instantiate(cfg.sampler if cfg.sampler is not None else run.sampler, _convert_="all"))


def classifier(cfg: DictConfig, path: Path, device: torch.device) -> Extractor | None:
    """The extractor that was chosen, loaded; one that learns from data is given the run's."""
    if cfg.metric.extractor is None:
        return None
    with open_dict(cfg):
        cfg.data = data_of(path, cfg)
    extractor: Extractor = instantiate(cfg.metric.extractor, _convert_="all")
    extractor.load(device)
    return extractor


def captions(paths: Sequence[Path]) -> list[str]:
    """The names of the runs' folders, or of exports; with more of their paths where these are equal."""
    homes = [path.with_suffix("") if path.parent.name != "checkpoints" else path.parent.parent for path in paths]
    for parts in range(1, max(len(home.parts) for home in homes) + 1):
        names = ["/".join(home.parts[-parts:]) for home in homes]
        if len({*names}) == len(names):
            return names
    return [f"{home.name}, {path.stem}, {k}" for k, (home, path) in enumerate(zip(homes, paths, strict=True), start=1)]


def heading(subjects: dict[str, Subject], paths: Sequence[Path], ema: bool) -> list[str]:
    averaged = "averaged" if ema else "raw"
    return [
        f"{name}: {path}, {averaged} weights ({subject.denoiser.images_seen:,} images seen)"
        for (name, subject), path in zip(subjects.items(), paths, strict=True)
    ]

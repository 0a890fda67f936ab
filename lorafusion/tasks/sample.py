"""Draw images from a trained denoiser, of a run or an export: PNG files, a grid, and one npz."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from lorafusion.denoisers.guidance import Guidance
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.files import replacing
from lorafusion.pictures import grid, save_png, to_uint8
from lorafusion.progress import bar
from lorafusion.tasks import run_folder


def sample(cfg: DictConfig) -> None:
    path = run_folder.find_checkpoint(cfg.ckpt)
    run = run_folder.saved_config(path)
    denoiser = run_folder.restore(path, run, ema=cfg.ema).to(run_folder.device(cfg.device))
    if cfg.compile:
        denoiser.compile_net()
    sampler = instantiate(cfg.sampler if cfg.sampler is not None else run.sampler, _convert_="all")
    seeds = parse_seeds(cfg.seeds, cfg.n)
    labels = choose_labels(cfg.label, seeds, denoiser.net.num_classes)
    guidance = choose_guidance(cfg.guidance, cfg.guidance_between, labels is not None)
    with bar("sampling", unit="evaluations") as progress:
        images = denoiser.sample(
            sampler, seeds, None if labels is None else denoiser.one_hot(labels), cfg.batch_size, progress, guidance
        )
    out = Path(cfg.out).absolute() if cfg.out else run_folder.results(path, "samples")
    write(to_uint8(images), seeds, labels, out)
    seen = f" ({denoiser.images_seen:,} images seen)" if denoiser.images_seen else ""
    print(f"{len(seeds)} images, their grid and samples.npz from {path.name}{seen}")
    print(out)


def choose_guidance(scale: float, between: Sequence[float], labelled: bool) -> Guidance | None:
    """Raises UserError where there are no labels to guide by, and for values that are none."""
    if scale == 1:
        return None
    if not labelled:
        raise UserError(f"guidance={scale} was given, but this run is unconditional")
    try:
        return Guidance(scale, *between)
    except (ValueError, TypeError) as error:
        raise UserError(f"guidance={scale} guidance_between={[*between]}: {error}") from error


def write(images: np.ndarray, seeds: Tensor, labels: Tensor | None, out: Path) -> None:
    """images/<seed>.png, grid.png and samples.npz (images uint8 (N, H, W, C), seeds, labels)."""
    with bar("writing", unit="images") as progress:
        for k, (image, seed) in enumerate(zip(images, seeds.tolist(), strict=True)):
            save_png(image, out / "images" / f"{seed:06d}.png")
            progress(k + 1, len(images))
    save_png(grid(images[:256]), out / "grid.png", scale=max(1, 64 // images.shape[1]))
    known = {} if labels is None else {"labels": labels.numpy()}
    with replacing(out / "samples.npz") as temporary:
        np.savez_compressed(temporary, images=images, seeds=seeds.numpy(), **known)  # pyright: ignore[reportArgumentType]


def parse_seeds(seeds: str | int | ListConfig | None, n: int) -> Tensor:
    """'0-63', a number, a list of these, or None = 0 .. n-1. Raises UserError on anything else."""
    if seeds is None:
        return torch.arange(n)
    parts = seeds if isinstance(seeds, ListConfig) else [seeds]
    values: list[int] = []
    for part in parts:
        first, dash, last = str(part).partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise UserError(f"seeds={seeds}: {part!r} is neither a number nor a range like 0-63")
        values += range(int(first), int(last or first) + 1)
    if not values:
        raise UserError(f"seeds={seeds} names no seed; a range counts upwards, like 0-63")
    return torch.tensor(values)


def choose_labels(label: str | int | ListConfig | None, seeds: Tensor, num_classes: int | None) -> Tensor | None:
    """(N,) classes: one for all, a list of N, 'balanced' = seed modulo K, or None = drawn from each seed."""
    if num_classes is None:
        if label is not None:
            raise UserError("label= was given, but this run is unconditional")
        return None
    if label is None:
        return Draws(zlib.crc32(b"label"), seeds).integers(num_classes)
    if label == "balanced":
        return seeds % num_classes
    chosen = [label] if isinstance(label, int | str) else list(label)
    if not all(str(c).isdecimal() and int(c) < num_classes for c in chosen):
        raise UserError(f"label={label}: classes are 0 .. {num_classes - 1}, one, a list of them, or balanced")
    if len(chosen) not in (1, len(seeds)):
        raise UserError(f"label= has {len(chosen)} classes for {len(seeds)} images; give one, or one an image")
    return torch.tensor([int(c) for c in chosen]).expand(len(seeds)).clone()

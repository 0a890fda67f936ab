"""Draw images from a trained denoiser, of a run or an export, one for each seed; as many as one likes.

They are drawn in shards by one process or by several that torchrun starts (tasks/shards.py), and what lies in the
folder at the end is tasks/sample_files.py's. Whatever the size of the shards, the number of processes, and how often
they were killed: image k depends on its own seed, label and settings alone.
"""

import hashlib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.guidance import Guidance
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.pictures import to_uint8
from lorafusion.processes import Prediction, Process
from lorafusion.progress import bar
from lorafusion.samplers import Sampler
from lorafusion.tasks import run_folder, sample_files, weights
from lorafusion.tasks.seeds import choose_labels, parse_seeds, written
from lorafusion.tasks.shards import Shards


def sample(cfg: DictConfig) -> None:
    rank, world_size = run_folder.place()
    path = run_folder.find_checkpoint(cfg.ckpt)
    run = run_folder.saved_config(path)
    denoiser = run_folder.restore(path, run, ema=cfg.ema).to(run_folder.device(cfg.device))
    chosen = cfg.sampler if cfg.sampler is not None else run.sampler
    sampler = instantiate(chosen, _convert_="all")
    seeds = parse_seeds(cfg.seeds, cfg.n)
    labels = choose_labels(cfg.label, seeds, denoiser.net.num_classes)
    guidance = choose_guidance(cfg.guidance, cfg.guidance_between, labels is not None)
    side = denoiser.net.resolution
    sample_files.check_formats(cfg.formats, side)
    out = Path(cfg.out).expanduser().absolute() if cfg.out else run_folder.results(path, "samples")
    shards = Shards(out, len(seeds), shard_size(cfg.batch_size, cfg.micro_batch), (side, side, denoiser.net.channels))
    settings = describe(cfg, path, denoiser, chosen, seeds, labels, guidance)
    maker = {"versions": run_folder.versions(), "device": _device_name(denoiser.device), "processes": world_size}
    if cfg.compile:
        denoiser.compile_net()
    with run_folder.locked(out, "out") if rank == 0 else nullcontext():
        sample_files.check_strangers(out, seeds.numpy(), cfg.formats)
        if not shards.folder.exists() and sample_files.are_there(out, settings, cfg.formats, maker):
            say(rank, f"all {len(seeds):,} images were drawn with these settings already", out)
            return
        shards.claim(settings, maker, first=rank == 0)
        if rank == 0:
            announce(shards, settings)
        draw(denoiser, sampler, seeds, labels, guidance, cfg.micro_batch, shards, rank, world_size)
        if rank > 0:
            return
        steps, evaluations = cost(sampler, denoiser.process, guidance, denoiser.device)
        record = {**settings, "steps": steps, "evaluations": evaluations, "made_by": shards.made_by()}
        sample_files.write(shards, seeds.numpy(), None if labels is None else labels.numpy(), cfg.formats, record)
        shards.remove()
    seen = f" ({denoiser.images_seen:,} images seen)" if denoiser.images_seen else ""
    files = sample_files.names(cfg.formats)
    say(
        rank,
        f"{len(seeds):,} images in {steps} steps, {evaluations} evaluations each: {files} from {path.name}{seen}",
        out,
    )


def say(rank: int, line: str, out: Path) -> None:
    if rank == 0:
        print(line)
        print(out)


def draw(
    denoiser: Denoiser,
    sampler: Sampler,
    seeds: Tensor,
    labels: Tensor | None,
    guidance: Guidance | None,
    micro_batch: int,
    shards: Shards,
    rank: int,
    world_size: int,
) -> None:
    """This process's shards that are not there yet; the first process then waits for the others'."""
    shown = bar("sampling", unit="images") if rank == 0 else nullcontext(_silent)
    with shown as report:
        report(shards.done(), shards.n)
        for k in range(rank, len(shards), world_size):
            if shards.is_whole(k):
                continue
            rows, before = shards.rows(k), shards.done()
            size = rows.stop - rows.start

            def progress(done: int, steps: int, before: int = before, size: int = size) -> None:
                report(before + size * done // steps, shards.n)

            label = None if labels is None else denoiser.one_hot(labels[rows].to(denoiser.device))
            images = denoiser.sample(sampler, seeds[rows], label, micro_batch, progress, guidance)
            shards.write(k, to_uint8(images))
        if rank == 0:
            shards.wait(report)


def _silent(done: int, total: int) -> None:
    pass


def announce(shards: Shards, settings: dict[str, Any]) -> None:
    """One line where work goes on, or where it replaces other samples."""
    if found := shards.done():
        whole = len(shards.whole)
        print(f"going on: {whole:,} of {len(shards):,} shards ({found:,} of {shards.n:,} images) were drawn before")
    elif different := sample_files.replaced(shards.out, settings):
        print(f"the samples in {shards.out} will be replaced; they were drawn with {different}")


def shard_size(batch_size: int, micro_batch: int) -> int:
    """Of whole micro-batches. Raises UserError for less than one image."""
    for key, value in (("batch_size", batch_size), ("micro_batch", micro_batch)):
        if value < 1:
            raise UserError(f"{key}={value}: at least 1")
    return math.ceil(batch_size / micro_batch) * micro_batch


def describe(
    cfg: DictConfig,
    path: Path,
    denoiser: Denoiser,
    sampler: DictConfig,
    seeds: Tensor,
    labels: Tensor | None,
    guidance: Guidance | None,
) -> dict[str, Any]:
    """All that decides the images, as JSON keeps it; samples of two descriptions are never mixed."""
    asked = "drawn from each seed" if cfg.label is None else cfg.label
    asked = [*asked] if isinstance(asked, ListConfig) else asked
    described = {
        "checkpoint": {
            "file": path.name,
            "sha256": weights.sha256(path),
            "images_seen": denoiser.images_seen,
            "ema": cfg.ema,
        },
        "sampler": OmegaConf.to_container(sampler, resolve=True),
        "guidance": None if guidance is None else asdict(guidance),
        "seeds": written(seeds),
        "labels": None
        if labels is None
        else {"asked": asked, "sha256": hashlib.sha256(labels.numpy().tobytes()).hexdigest()},
        "noise_seed": denoiser.seed,
        "micro_batch": cfg.micro_batch,
        "batch_size": cfg.batch_size,
        "device": denoiser.device.type,
        "compile": cfg.compile,
    }
    return _finite(described)


def cost(sampler: Sampler, process: Process, guidance: Guidance | None, device: torch.device) -> tuple[int, int]:
    """Steps, and evaluations of the network for an image, counted on one that is a single pixel."""
    steps = evaluations = 0

    def denoise(x: Tensor, sigma: Tensor) -> Prediction:
        nonlocal evaluations
        evaluations += 1
        return Prediction(torch.zeros_like(x), torch.zeros_like(x))

    def progress(done: int, total: int) -> None:
        nonlocal steps
        steps = total

    guided = guidance.between(denoise, denoise) if guidance else denoise
    sampler(guided, process, Draws(0, torch.zeros(1, dtype=torch.long, device=device)), (1, 1, 1), device, progress)
    return steps, evaluations


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


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _finite(value: Any) -> Any:
    """JSON knows no infinity: it becomes text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

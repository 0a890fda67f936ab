"""Judge a model by the bits per dimension that it needs for real images: a table, a picture, csv and metrics.json."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from jaxtyping import Int, Shaped
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lorafusion.data.module import ImageData, scaled
from lorafusion.denoisers.base import Denoiser, in_its_dtype
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.files import replacing
from lorafusion.metrics.bpd import BitsPerDim, Measured
from lorafusion.metrics.metrics_file import record
from lorafusion.processes.bound import Bound
from lorafusion.processes.ddpm import DDPM
from lorafusion.progress import bar
from lorafusion.samplers import Progress
from lorafusion.tasks import run_folder
from lorafusion.tasks.run_data import choose
from lorafusion.tasks.weights import described

_BOUND = 4 << 40  # keeps these draws apart from those of training, validation and sampling


def judge(cfg: DictConfig, metric: BitsPerDim) -> Path:
    path = run_folder.find_checkpoint(cfg.ckpt)
    run = run_folder.saved_config(path)
    denoiser = run_folder.restore(path, run, ema=cfg.ema).to(run_folder.device(cfg.device))
    bound = bound_of(denoiser.process, cfg.steps)
    data: ImageData = instantiate(cfg.data, _convert_="all")
    images, labels, index = chosen_images(data, cfg.split, cfg.n)
    with bar("bounding", unit="evaluations") as progress:
        measure(metric, bound, denoiser, images, labels, index, cfg.batch_size, progress)
    found = metric.measured()
    out = Path(cfg.out).expanduser().absolute() if cfg.out else run_folder.results(path, "metrics")
    name = metric.name if cfg.split == "test" else f"{metric.name}_{cfg.split}"
    write_terms(found, bound.known, out / f"{name}.csv")
    draw(found, bound.known, out / f"{name}.png")
    asked = {"split": cfg.split, "steps": bound.num_steps, "of": denoiser.process.num_steps}
    weights = described(path, denoiser, ema=cfg.ema)
    shown = {key: value for key, value in asdict(found).items() if not isinstance(value, np.ndarray)}
    dataset = {"name": data.name, "resolution": data.resolution, "channels": data.channels}
    dataset["sha256"] = data.split(cfg.split).meta["sha256"]
    parameters = sum(p.numel() for p in denoiser.net.parameters())
    entry: dict[str, Any] = {"checkpoint": weights, "bits_per_dim": found.total, **shown, **asked}
    entry |= {"parameters": parameters, "noise_seed": denoiser.seed, "dataset": dataset}
    record(out, name, entry, subject="checkpoint")
    console = Console()
    averaged = "averaged" if cfg.ema else "raw"
    console.print(
        f"{path}, {averaged} weights ({denoiser.images_seen:,} images seen), on {found.n:,} {cfg.split} images of "
        f"{data.name} at {data.resolution} px; {bound.num_steps} of {denoiser.process.num_steps} timesteps",
        soft_wrap=True,
    )
    console.print(table(found))
    return out


def bound_of(process: Any, steps: int | None) -> Bound:
    """Raises UserError where the process has no such bound, or not so many steps."""
    if not isinstance(process, DDPM):
        raise UserError(
            f"metric=bpd sums a bound over discrete timesteps, and this run's process, {type(process).__name__}, is "
            "continuous; runs of process=ddpm and process=iddpm have one"
        )
    if steps is not None and not 1 <= steps <= process.num_steps:
        raise UserError(f"steps={steps}: 1 .. {process.num_steps}, the steps of this run's process, or null for all")
    try:
        return Bound(process, steps)
    except ValueError as error:
        raise UserError(f"steps={steps}: {error}") from error


def chosen_images(data: ImageData, split: str, n: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n images of a split, uint8, or all; their labels and numbers. Raises UserError where there are not so many."""
    images, labels = data.arrays(split)
    total = min(len(images), data.subset or len(images)) if split == "train" else len(images)
    if n is not None and not 1 <= n <= total:
        raise UserError(f"n={n}: 1 .. {total:,}, the {split} images of {data.name}, or null for all")
    index = choose(total, n or total)
    return images[index], labels[index], index


def measure(
    metric: BitsPerDim,
    bound: Bound,
    denoiser: Denoiser,
    images: Shaped[np.ndarray, "N C R R"],
    labels: Int[np.ndarray, "N"],
    index: Int[np.ndarray, "N"],
    batch_size: int = 64,
    progress: Progress | None = None,
) -> None:
    """Give ``metric`` the terms of uint8 images, those of each drawn with its own noise whatever its neighbours are.

    index:       which image each is: image k draws the same noise whatever ``batch_size``, or how many others come.
    batch_size:  of an evaluation; the last batch is padded, for networks round differently at other sizes.
    """
    net, device = in_its_dtype(denoiser.net), denoiser.device
    starts = range(0, len(images), batch_size)
    for done, start in enumerate(starts):
        n = min(batch_size, len(images) - start)
        rows = np.arange(start, start + batch_size).clip(max=len(images) - 1)
        x0 = scaled(torch.from_numpy(images[rows]).to(device)).double()
        label = denoiser.one_hot(torch.from_numpy(labels[rows]).to(device))
        draws = Draws(denoiser.seed + _BOUND, torch.from_numpy(index[rows]).to(device))

        def report(steps: int, of: int, before: int = done) -> None:
            if progress:
                progress(before * of + steps, len(starts) * of)

        bits = bound(net, x0, draws, label, report)
        terms = (bits.prior, bits.at_step.vb, bits.at_step.mse, bits.at_step.x0_mse)
        metric.add(*(term[:n].cpu().numpy() for term in terms))


def table(found: Measured) -> Table:
    shown = Table("bits per dimension", "", title=None)
    shown.columns[1].justify = "right"
    shown.add_row("bound (total)", f"{found.total:.4f}" + ("" if found.error is None else f" ± {found.error:.4f}"))
    shown.add_row("L_0, the 8-bit image", f"{found.vb[0]:.4f}")
    shown.add_row("L_t, t > 0", f"{found.vb[1:].sum():.4f}")
    shown.add_row("prior", f"{found.prior:.2e}")
    return shown


def write_terms(found: Measured, known: Int[Tensor, "T"], path: Path) -> None:
    """One row a timestep, means over the images: vb in bits per dimension, squared errors of eps and of x0."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("timestep", "vb", "mse", "x0_mse"))
        writer.writerows(zip(known.tolist(), found.vb.tolist(), found.mse.tolist(), found.x0_mse.tolist(), strict=True))


def draw(found: Measured, known: Int[Tensor, "T"], picture: Path) -> None:
    """The terms over the timesteps, on a log axis; a term of a float's last digits may be 0 or less: not drawn."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    for name, says in (("vb", "L_t, bits per dimension"), ("mse", "squared error of eps"), ("x0_mse", "of x0")):
        y = getattr(found, name)
        axes.plot(
            known.numpy(), np.where(y > 0, y, np.nan), label=says, linewidth=1, marker="." if len(y) < 50 else None
        )
    axes.set(xlabel="timestep", yscale="log", title=f"{found.total:.3f} bits per dimension")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")

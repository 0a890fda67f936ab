"""What draws images: a trained denoiser and task=sample's settings of it, into a folder, for any seeds.

Images are drawn in shards by one process or by several that torchrun starts (tasks/shards.py), and what lies in the
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
from jaxtyping import Int
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from lorafusion.denoisers.cost import cost
from lorafusion.denoisers.guidance import Guidance
from lorafusion.errors import UserError
from lorafusion.metrics.reference import all_say
from lorafusion.pictures import to_uint8
from lorafusion.progress import bar
from lorafusion.samplers import Sampler
from lorafusion.tasks import run_folder, sample_files, together, weights
from lorafusion.tasks.seeds import choose_labels, written
from lorafusion.tasks.shards import Shards
from lorafusion.versions import versions


class Drawer:
    """The denoiser of ``cfg.ckpt``, a run or an export, and how it samples, as the settings of task=sample say.

    Raises UserError where these do not go together.
    """

    def __init__(self, cfg: DictConfig):
        self.cfg, self.path = cfg, run_folder.find_checkpoint(cfg.ckpt)
        run = run_folder.saved_config(self.path)
        self.denoiser = run_folder.restore(self.path, run, ema=cfg.ema).to(run_folder.device(cfg.device))
        self.chosen = cfg.sampler if cfg.sampler is not None else run.sampler
        self.sampler: Sampler = instantiate(self.chosen, _convert_="all")
        labelled = self.denoiser.net.num_classes is not None
        self.guidance = choose_guidance(cfg.guidance, cfg.guidance_between, labelled)
        self.shard_size = shard_size(cfg.batch_size, cfg.micro_batch)
        self.rank, self.world_size = run_folder.place()
        if cfg.compile:
            self.denoiser.compile_net()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, R, R)"""
        net = self.denoiser.net
        return net.channels, net.resolution, net.resolution

    def labels(self, seeds: Int[Tensor, "N"]) -> Int[Tensor, "N"] | None:
        """Raises UserError where ``label=`` does not suit the run or the seeds."""
        return choose_labels(self.cfg.label, seeds, self.denoiser.net.num_classes)

    def write(self, seeds: Int[Tensor, "N"], out: Path, formats: Sequence[str]) -> str:
        """Draw what is not there yet, then the first process writes all ``formats``; says what was done.

        Processes that are connected leave together; else all but the first leave when they have drawn their part.
        Raises UserError where something else lies in ``out``.
        """
        labels, shards = self.labels(seeds), self._shards(seeds, out)
        sample_files.check_formats(formats, shards.shape[0])
        settings = self.settings(seeds, labels)
        maker = {"versions": versions(), "device": self._device(), "processes": self.world_size}
        with run_folder.locked(out, "out") if self.rank == 0 else nullcontext():
            sample_files.check_strangers(out, seeds.numpy(), formats)
            there = not shards.folder.exists() and sample_files.are_there(out, settings, formats, maker)
            if all_say(there, self.denoiser.device):
                return f"all {len(seeds):,} images were drawn with these settings already"
            shards.claim(settings, maker, first=self.rank == 0)
            if self.rank == 0:
                announce(shards, settings)
            self._draw(seeds, labels, shards)
            together.meet()  # before the first one removes the shards
            if self.rank == 0:
                record = {**settings, **self.cost(), "made_by": shards.made_by()}
                sample_files.write(shards, seeds.numpy(), None if labels is None else labels.numpy(), formats, record)
                shards.remove()
            together.meet()
        return self._said(len(seeds), formats)

    def _said(self, n: int, formats: Sequence[str]) -> str:
        seen = self.denoiser.images_seen
        cost, files = self.cost(), sample_files.names(formats)
        spent = f"{cost['steps']} steps, {cost['evaluations']} evaluations each"
        return f"{n:,} images in {spent}: {files} from {self.path.name}" + (f" ({seen:,} images seen)" if seen else "")

    def settings(self, seeds: Int[Tensor, "N"], labels: Int[Tensor, "N"] | None) -> dict[str, Any]:
        """All that decides the images, as JSON keeps it; samples of two descriptions are never mixed."""
        cfg, denoiser = self.cfg, self.denoiser
        asked = "drawn from each seed" if cfg.label is None else cfg.label
        asked = [*asked] if isinstance(asked, ListConfig) else asked
        described = {
            "checkpoint": weights.described(self.path, denoiser, ema=cfg.ema),
            "sampler": OmegaConf.to_container(self.chosen, resolve=True),
            "guidance": None if self.guidance is None else asdict(self.guidance),
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

    def cost(self) -> dict[str, int]:
        """Steps, and evaluations of the network, of an image; parameters of the network."""
        steps, evaluations = cost(self.sampler, self.denoiser.process, self.guidance, self.denoiser.device)
        parameters = sum(p.numel() for p in self.denoiser.net.parameters())
        return {"steps": steps, "evaluations": evaluations, "parameters": parameters}

    def _shards(self, seeds: Int[Tensor, "N"], out: Path) -> Shards:
        channels, side, _ = self.shape
        return Shards(out, len(seeds), self.shard_size, (side, side, channels))

    def _device(self) -> str:
        device = self.denoiser.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def _draw(self, seeds: Tensor, labels: Tensor | None, shards: Shards) -> None:
        """This process's shards that are not there yet; the first, or each if connected, then waits for the others'."""
        denoiser = self.denoiser
        shown = bar("sampling", unit="images") if self.rank == 0 else nullcontext(_silent)
        with shown as report:
            report(shards.done(), shards.n)
            for k in range(self.rank, len(shards), self.world_size):
                if shards.is_whole(k):
                    continue
                rows, before = shards.rows(k), shards.done()
                size = rows.stop - rows.start

                def progress(done: int, steps: int, before: int = before, size: int = size) -> None:
                    report(before + size * done // steps, shards.n)

                label = None if labels is None else denoiser.one_hot(labels[rows].to(denoiser.device))
                images = denoiser.sample(
                    self.sampler, seeds[rows], label, self.cfg.micro_batch, progress, self.guidance
                )
                shards.write(k, to_uint8(images))
            if self.rank == 0 or together.connected():
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


def _finite(value: Any) -> Any:
    """JSON knows no infinity: it becomes text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

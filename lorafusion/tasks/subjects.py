"""What is judged by its images: samples that lie somewhere, or those that a checkpoint draws now."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

from jaxtyping import Int
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from lorafusion.errors import UserError
from lorafusion.tasks import run_folder, weights
from lorafusion.tasks.drawer import Drawer
from lorafusion.tasks.evaluate_samples import Samples
from lorafusion.tasks.sample_files import record_of
from lorafusion.tasks.sample_sets import read_set
from lorafusion.tasks.seeds import seed_sets, written

_LONGEST = 60  # characters of a folder's name


class Subject(Protocol):
    """key:    in metrics.json: entries of one file share what stands there.
    file:   by which the run's folder is found.
    shape:  (N, C, R, R) of each set.
    home:   of metrics.json, where no other is asked for.
    """

    key: str
    file: Path
    shape: tuple[int, ...]
    home: Path

    def sets(self) -> list[tuple[str, Samples]]:
        """Each with its name; all processes have to ask, if there are several."""
        ...

    def described(self, sets: list[Samples]) -> dict[str, Any]:
        """For metrics.json, with ``key`` among its keys."""
        ...


class Given:
    """Samples in files: ``cfg.samples``, one or a list. Raises UserError where sets differ in number or shape."""

    key = "samples"

    def __init__(self, cfg: DictConfig):
        paths = cfg.samples if isinstance(cfg.samples, ListConfig) else [cfg.samples]
        self._sets = [read_set(Path(path).expanduser().absolute()) for path in paths]
        first = self._sets[0]
        for samples in self._sets[1:]:
            if samples.images.shape != first.images.shape:
                raise UserError(
                    f"samples: {samples.file} holds {samples.images.shape}, {first.file} {first.images.shape}: "
                    "sets that are reported together are equal in number and shape"
                )
        self.file, self.shape, self.home = first.file, first.images.shape, _folder(first.file)

    def sets(self) -> list[tuple[str, Samples]]:
        return [(str(samples.file), samples) for samples in self._sets]

    def described(self, sets: list[Samples]) -> dict[str, Any]:
        return _samples(sets)


class Drawn:
    """Images that the checkpoint ``cfg.ckpt`` draws as task=sample would, and keeps in samples/ beside metrics.json:
    a killed evaluation goes on with them, and another metric's finds them there.
    """

    key = "checkpoint"

    def __init__(self, cfg: DictConfig):
        self.seeds = seed_sets(cfg.seeds, cfg.n, cfg.sets)
        self.drawer = Drawer(cfg)
        self.drawer.labels(self.seeds[0])  # a mistake in them shows before hours of drawing
        self.file, self.shape = self.drawer.path, (len(self.seeds[0]), *self.drawer.shape)
        self.home = run_folder.results(self.file, "metrics")
        self.out = Path(cfg.out).expanduser().absolute() if cfg.out else self.home

    def sets(self) -> list[tuple[str, Samples]]:
        found = []
        for seeds in self.seeds:
            folder = self.out / "samples" / _called(seeds)
            done = self.drawer.write(seeds, folder, ["npy"])
            if self.drawer.rank == 0:
                print(done)
            found.append((f"seeds {', '.join(written(seeds))}", read_set(folder / "samples.npy")))
        return found

    def described(self, sets: list[Samples]) -> dict[str, Any]:
        drawer = self.drawer
        return {"checkpoint": weights.described(self.file, drawer.denoiser, ema=drawer.cfg.ema), **_samples(sets)}


def subject_of(cfg: DictConfig) -> Subject:
    return Given(cfg) if cfg.samples is not None else Drawn(cfg)


def _samples(sets: list[Samples]) -> dict[str, Any]:
    """The sets, what made them where that is known, and of that what tables show."""
    subjects = [{"file": s.file.name, "sha256": s.sha256, "n": len(s.images)} for s in sets]
    made = [record_of(_folder(s.file)) for s in sets]
    named = {"nfe": "evaluations", "parameters": "parameters"}
    shown = {name: made[0][key] for name, key in named.items() if key in made[0]}
    one = len(sets) == 1
    return {"samples": subjects[0] if one else subjects, **shown, "made": (made[0] if one else made) or None}


def _folder(samples: Path) -> Path:
    """That of a file; that of images/ of task=sample; else the folder of images itself."""
    return samples.parent if samples.is_file() or (samples.parent / "samples.json").is_file() else samples


def _called(seeds: Int[Tensor, "N"]) -> str:
    """0-49999"""
    name = "_".join(written(seeds))
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST].rpartition('_')[0]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"

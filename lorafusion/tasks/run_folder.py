"""A run's folder: what it says about the run, and how a model is rebuilt from it.

config.yaml      resolved                   checkpoints/   named by images seen
overrides.txt    what was asked for         samples/       grids, and what task=sample writes
versions.json    packages, git revision     metrics.csv, curves.png
status.json      see status.py              model.json     parameters and multiply-adds by part
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lorafusion import checkpoint
from lorafusion.convert.fill import fill
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.files import write_text
from lorafusion.tasks import weights
from lorafusion.versions import versions

TRUST = "LORAFUSION_TRUST"  # environment: packages of the user's own that a saved config may name, with commas


def create(cfg: DictConfig) -> tuple[Path, TextIO | nullcontext]:
    """Make the folder, say in it what runs, and lock it until the returned file is closed or the process ends.

    Only the first process of a distributed run does. Raises UserError, and changes nothing, if another run is alive in
    the folder, or has left checkpoints there and ``cfg.resume`` does not go on from them.
    """
    folder = Path(cfg.paths.run_dir).absolute()
    if rank() > 0:
        return folder, nullcontext()
    lock = locked(folder, "paths.run_dir")
    if cfg.get("resume") is None and checkpoint.list_checkpoints(folder / "checkpoints"):
        lock.close()
        raise UserError(f"{folder} already holds a run: resume=auto continues it, or choose another paths.run_dir")
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    write_text(folder / "overrides.txt", "\n".join(HydraConfig.get().overrides.task) + "\n")
    write_text(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
    return folder, lock


def locked(folder: Path, setting: str) -> TextIO:
    """Make the folder, and lock it until the returned file is closed or the process ends.

    Raises UserError, which names the ``setting`` that chose the folder, if another process has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, loader workers do not inherit it
    except (BlockingIOError, PermissionError):
        raise UserError(f"another process is running in {folder}; choose another {setting}, or wait") from None
    return lock


def place() -> tuple[int, int]:
    """(rank, world size) of a process that torchrun started, or anything else that sets both; else (0, 1)."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def rank() -> int:
    """Of this process in a distributed run, before it is set up: torchrun, SLURM and Lightning say it so."""
    return next((int(os.environ[k]) for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if k in os.environ), 0)


def find_checkpoint(ckpt: str) -> Path:
    """A checkpoint's own path, or the newest good one of a run's folder. Raises UserError where there is none."""
    path = Path(ckpt).expanduser().absolute()
    if path.is_dir():
        newest = checkpoint.newest(path / "checkpoints")
        if newest is None:
            raise UserError(f"{ckpt}: this folder has no checkpoint in checkpoints/; is it a run's folder?")
        return newest
    return path


def saved_config(path: Path) -> DictConfig:
    """The config of the run that wrote checkpoint ``path``; of an export, its parts that its JSON has.

    Raises UserError where it is missing, and for one that would run what is not known.
    """
    if path.suffix == weights.EXPORT:
        file, cfg = path.with_suffix(".json"), OmegaConf.create(weights.export_config(path))
    elif path.suffix != checkpoint.SUFFIX:
        raise UserError(
            f"{path} is neither a checkpoint nor an export of ours; `python run.py task=convert file={path} ...`, with "
            "the experiment that it is of, makes an export of it"
        )
    else:
        file = path.parent.parent / "config.yaml"
        if not file.is_file():
            raise UserError(f"checkpoint {path} stands in no run's folder: {file} is missing")
        cfg = cast(DictConfig, OmegaConf.load(file))
    check_known(cfg, file)
    return cfg


def restore(path: Path, cfg: DictConfig, *, ema: bool = True) -> Denoiser:
    """The denoiser of ``cfg`` with the weights of ``path``, averaged where it has averages and ``ema`` is true."""
    if path.suffix == weights.EXPORT:
        return _restore_export(path, cfg, ema)
    content = checkpoint.load(path)
    denoiser: Denoiser = instantiate(cfg.denoiser, _convert_="all")
    try:
        denoiser.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(
            f"checkpoint {path} does not fit its config.yaml: {' '.join(str(error).split())[:300]}"
        ) from error
    if ema and "ema" in content:
        denoiser.load_state_dict(content["ema"], strict=False)
    denoiser.images_seen = content["images_seen"]
    return denoiser.eval()


def _restore_export(path: Path, cfg: DictConfig, ema: bool) -> Denoiser:
    if not ema:
        raise UserError(f"ema=false: export {path} holds one set of weights; task=convert ema=false exports the raw")
    tensors = weights.read_verified(path).tensors
    denoiser: Denoiser = instantiate(cfg.denoiser, _convert_="all")
    fill(denoiser.net, tensors, source=str(path))
    denoiser.images_seen = cfg.images_seen or 0  # null of weights from elsewhere
    return denoiser.eval()


def results(path: Path, kind: str) -> Path:
    """Where what a checkpoint or an export makes belongs: a folder of its name in ``kind`` (samples, metrics)."""
    home = path.parent if path.suffix == weights.EXPORT else path.parent.parent  # of a checkpoint, the run's folder
    return home / kind / path.stem


def check_known(cfg: DictConfig, file: Path) -> None:
    """Raises UserError where what ``file`` holds could run what is none of ours: somebody else may have written it."""
    config = OmegaConf.to_container(cfg)
    for value in _values(config):
        if "${" in value:
            raise UserError(f"{file} holds an interpolation, {value[:60]!r}, which no run writes, so it is not used")
    for target in _targets(config):
        if not _is_known(target):
            raise UserError(
                f"{file} names {target}, which is no class of lorafusion or torch.optim, so it is not run; "
                f"if it is yours: {TRUST}={target.partition('.')[0]}"
            )


def _values(node: Any) -> Iterator[str]:
    """Every text in it, keys too."""
    if isinstance(node, str):
        yield node
    for item in [*node, *node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from _values(item)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([str(node["_target_"])] if "_target_" in node else [])
        node = list(node.values())
    for item in node if isinstance(node, list) else []:
        yield from _targets(item)


def _is_known(target: str) -> bool:
    """Whether a config that somebody handed over may name it: a class, defined in a module of ours, or an optimizer.

    The module is looked up as a file, for `lorafusion.x.torch.hub.load` is an attribute path to something else.
    """
    module, _, name = target.rpartition(".")
    if target.partition(".")[0] in os.environ.get(TRUST, "").split(","):
        return True
    if module == "torch.optim":
        found = getattr(torch.optim, name, None)
        return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    room = module.split(".")[1:2]
    if not module.startswith("lorafusion.") or room in (["cli"], ["tasks"]):
        return module in ("lightning", "lightning.pytorch.profilers") or target == "lorafusion.tasks.train.train"
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return getattr(found, "__module__", None) == module and (isinstance(found, type) or name == "wandb_logger")


def device(name: str) -> torch.device:
    """'auto' = the accelerator if there is one; of several processes each takes its own."""
    if name not in ("auto", "cuda"):
        return torch.device(name)
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))

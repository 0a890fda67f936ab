"""A Weights & Biases run for each job: online where there is a key and a network, else offline, and never in the way.

Whatever goes wrong with W&B is said in one line, and training goes on as it would without.
"""

import json
import os
import secrets
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from jaxtyping import UInt8
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lorafusion.files import write_text
from lorafusion.logger.published import published
from lorafusion.logger.sweep_group import sweep_group
from lorafusion.logger.wandb_start import environment, one_line, reset, start
from lorafusion.run_name import choices, run_name

ID = Path("wandb", "run_id.txt")  # in the run's folder: resume=auto goes on in the same W&B run


class WandB(Logger):
    """folder:       of the run; everything W&B writes stays inside it.
    project, entity, tags, job_type:  as W&B has them; entity None = the user's own.
    name:         None = made of the choices: cifar10-edm-shift-uc_lora-r4-s0.
    group:        runs that belong together; None = the sweep of a multirun, none for a single run.
    mode:         None = online if there is a key and W&B answers.
    checkpoints:  whether the newest checkpoint becomes an artifact when the run ends.
    samples:      whether the grids of samples do.
    patience_s:   seconds at most that W&B may hold up the start.
    upload_s:     seconds at most that it may hold up the end, if the network fails; what is left, `wandb sync` sends.

    Every metric is drawn over ``nimg``, the images seen. Only the first process of a distributed run makes a W&B run.
    """

    def __init__(
        self,
        folder: str,
        project: str = "lorafusion",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str = "train",
        tags: list[str] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        checkpoints: bool = False,
        samples: bool = False,
        patience_s: float = 5.0,
        upload_s: float = 300.0,
    ):
        super().__init__()
        self.folder = Path(folder).absolute()
        self.run: Any = None  # a wandb.Run while it is open
        self._settings = {"project": project, "entity": entity, "job_type": job_type, "tags": tags or []}
        self._name, self._group, self._mode = name, group, mode
        self._checkpoints, self._samples = checkpoints, samples
        self._patience_s, self._upload_s = patience_s, upload_s
        self._nimg = 0.0
        self._costs: dict[str, Any] = {}
        self._open = ExitStack()  # restores the environment

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Opens the run. params: the resolved configuration."""
        config = vars(params) if isinstance(params, Namespace) else params
        with self._guarded():
            self._open.enter_context(environment(self.folder))
            self.run, obstacle = start(
                self.folder,
                self._mode,
                self._patience_s,
                upload_s=self._upload_s,
                id=self._id(goes_on=config.get("resume") is not None),
                resume="allow",
                name=self._name or run_name(config),
                group=self._group or group_of_sweep(),
                config={**published(config), "choices": choices(config)},
                **self._settings,
            )
            for axis in ("nimg", "step"):
                self.run.define_metric(axis, hidden=True)
            self.run.define_metric("*", step_metric="nimg")
            self._say(obstacle)

    def _id(self, goes_on: bool) -> str:
        """Of the W&B run; a W&B agent says which it is to be."""
        file = self.folder / ID
        known = file.read_text().strip() if goes_on and file.is_file() else ""
        number = os.environ.get("WANDB_RUN_ID") or known or secrets.token_hex(4)
        write_text(file, f"{number}\n")  # fails where W&B, unable to write here, would write to /tmp
        return number

    def _say(self, obstacle: str | None) -> None:
        if self.run.offline and not self.run.disabled:
            why = f": {obstacle}" if obstacle else ""
            where = os.path.relpath(self.run.settings.sync_dir)
            print(f"W&B: offline{why}; `wandb sync {where}` sends it later", flush=True)
        elif self.run.url:
            print(f"W&B: {self.run.url}", flush=True)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """A row of the history. One without ``nimg`` belongs to the images seen last."""
        if self.run is not None:
            with self._guarded():
                row = {name: float(value) for name, value in metrics.items() if name != "epoch"}
                self._nimg = row.setdefault("nimg", self._nimg)
                self._tell_cost()
                self.run.log({**row, **({} if step is None else {"step": step})})

    @rank_zero_only
    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W C"], nimg: int) -> None:
        if self.run is not None:
            with self._guarded():
                self.run.log({name: wandb.Image(picture), "nimg": float(nimg)})

    @rank_zero_only
    def close(self, exit_code: int) -> None:
        """0 = finished; all else shows as failed."""
        if self.run is not None:
            with self._guarded():
                self._tell_cost()
                for artifact in self._artifacts():
                    self.run.log_artifact(artifact)
                self.run.finish(exit_code=exit_code)
                if shutil.disk_usage(self.folder / "wandb").free < 2**20:  # its service says nothing of it
                    print("W&B: the disk is full, so its record of this run may lack the end", flush=True)
        self.run = None
        self._open.close()

    def _tell_cost(self) -> None:
        """Once model.json is there."""
        if not self._costs:
            self._costs = cost(self.folder / "model.json")
            self.run.summary.update(self._costs)

    def _artifacts(self) -> Iterator[wandb.Artifact]:
        """Of what was asked for, what there is; as many versions as the run ended times."""
        found = sorted((self.folder / "checkpoints").glob("[0-9]*.ckpt"))[-1:] if self._checkpoints else []
        found += sorted((self.folder / "best").glob("[0-9]*.ckpt"))[-1:] if self._checkpoints else []
        grids = sorted((self.folder / "samples").glob("grid_*.png")) if self._samples else []
        for kind, files in (("model", found), ("samples", grids)):
            if files:
                artifact = wandb.Artifact(f"{kind}-{self.run.id}", kind, metadata={"name": self.run.name})
                for file in files:
                    artifact.add_file(str(file), name=str(file.relative_to(self.folder)))
                if kind == "model":
                    artifact.add_file(str(self.folder / "config.yaml"), name="config.yaml")
                yield artifact

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """An error of W&B's ends the W&B run, not ours; its service too, else the next job would meet the same."""
        try:
            yield
        except Exception as error:
            print(f"W&B: {one_line(error)}; this run goes on without it", flush=True)
            self.run = None
            self._open.close()
            reset()


def group_of_sweep() -> str | None:
    """Of the multirun that this job belongs to; None in a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return sweep_group(Path(HydraConfig.get().sweep.dir))


def cost(file: Path) -> dict[str, int]:
    """Of a run's model.json: parameters, macs_per_image, and of each part parameters/embedding, ...; {} without it."""
    try:
        content = json.loads(file.read_text())
        parts = {"": content, **{f"/{name}": part for name, part in content["parts"].items()}}
        return {f"{k}{name}": part[k] for name, part in parts.items() for k in ("parameters", "macs_per_image")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


wandb_logger = WandB  # by which the config.yaml of earlier versions' runs knows it

"""The denoiser: a network, its conditioning and a process as one LightningModule that trains and samples.

Every random number of training follows from (seed, position in the stream of images), never from a generator's state,
so a run that is stopped anywhere and resumed computes what it would have computed undisturbed.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning import LightningModule
from torch import Tensor

from lorafusion.conditioning import Conditioning
from lorafusion.denoisers.guidance import Guidance
from lorafusion.draws import Draws
from lorafusion.processes import Net, Process
from lorafusion.samplers import Denoise, Progress, Sampler
from lorafusion.sites import Network

_VALIDATION, _SAMPLING = 1 << 40, 2 << 40  # keep the draws of training, validation and sampling apart


class Denoiser(LightningModule):
    """net:           a network of ``backbones``, not yet conditioned.
    conditioning:  attached to it here.
    process:       the diffusion process.
    optimizer:     parameters -> optimizer.
    schedule:      images seen -> factor on the learning rate.
    seed:          of initial draws: noise levels, noise, dropout, and of samples.
    name:          of the recipe, for run names and tables.
    label_dropout: how often training hides an image's label (the zero vector), 0 .. 1, for classifier-free guidance.
    """

    def __init__(
        self,
        net: Network,
        conditioning: Conditioning,
        process: Process,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int], float],
        seed: int = 0,
        name: str = "denoiser",
        label_dropout: float = 0.0,
    ):
        super().__init__()
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"denoiser: label_dropout must be 0 .. 1; got {label_dropout}")
        self.label_dropout = label_dropout
        self.net = conditioning.attach(net)
        self.process, self.optimizer, self.schedule, self.seed, self.name = process, optimizer, schedule, seed, name
        self.images_seen = 0

    def compile_net(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """From its next call on the network runs as one compiled graph; its weights keep their names.

        Training, validation and sampling have a graph each; noise levels and a padded last batch need no new one.
        """
        self.net.compile(fullgraph=True, dynamic=False, backend=backend)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        index = batch["index"]  # (B,) positions in the stream
        torch.manual_seed(hash((self.seed, self.images_seen, self.global_rank)))  # for dropout; all else uses Draws
        loss = self.training_loss(batch, Draws(self.seed, index)).mean()
        self.images_seen += len(index) * self.trainer.world_size
        self.log_dict({"loss": loss, "nimg": float(self.images_seen)}, batch_size=len(index))
        return loss

    def training_loss(self, batch: dict[str, Tensor], draws: Draws) -> Float[Tensor, "B"]:
        return self.process.loss(self.net, batch["image"], draws, self.training_label(batch, draws))

    def training_label(self, batch: dict[str, Tensor], draws: Draws) -> Float[Tensor, "B K"] | None:
        """The labels, some hidden if ``label_dropout`` asks for it."""
        label = batch["label"]
        if self.net.num_classes is not None and self.label_dropout > 0:
            label = label.where(draws.uniform() >= self.label_dropout, -1)
        return self.one_hot(label)

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> Float[Tensor, "B"]:
        return self.process.loss(self.net, batch["image"], draws, self.one_hot(batch["label"]))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Loss of the held-out images, each at its own fixed noise level and noise."""
        loss = self.loss(batch, Draws(self.seed + _VALIDATION, batch["index"]))
        values = {"val_loss": loss.mean(), "nimg": float(self.images_seen)}
        self.log_dict(values, batch_size=len(loss), sync_dist=self.trainer.world_size > 1)

    def one_hot(self, label: Int[Tensor, "B"]) -> Float[Tensor, "B K"] | None:
        """None for an unconditional network; an unlabelled image (-1) becomes the zero vector."""
        if self.net.num_classes is None:
            return None
        rows = F.one_hot(label.clamp(min=0), self.net.num_classes) * (label >= 0)[:, None]
        return rows.to(next(self.net.parameters()).dtype)

    def sample(
        self,
        sampler: Sampler,
        seeds: Int[Tensor, "B"],
        label: Float[Tensor, "B K"] | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        guidance: Guidance | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """One image in [-1, 1] for each seed; of one ``batch_size``, image k depends on seed k alone, to the last bit.

        batch_size:  images that the network sees at once; the last batch is padded, for it rounds differently at
                     other sizes. So task=sample keeps it fixed (``micro_batch``), whatever it draws at a time.
        progress:    called with (network evaluations done, in all) over all batches.
        guidance:    classifier-free, where there are labels; None = none.
        """
        shape = (self.net.channels, self.net.resolution, self.net.resolution)
        starts = range(0, len(seeds), batch_size)
        images = []
        for start in starts:
            rows = torch.arange(start, start + batch_size).clamp(max=len(seeds) - 1)
            some = None if label is None else label[rows].to(self.device)

            def report(done: int, steps: int, before: int = len(images)) -> None:
                if progress:
                    progress(before * steps + done, len(starts) * steps)

            denoise = self._denoise(some)
            if guidance and some is not None:
                denoise = guidance.between(denoise, self._denoise(torch.zeros_like(some)))
            draws = Draws(self.seed + _SAMPLING, seeds[rows].to(self.device))
            images.append(sampler(denoise, self.process, draws, shape, self.device, report).float())
        return torch.cat(images)[: len(seeds)].clamp(-1, 1)

    def _denoise(self, label: Tensor | None) -> Denoise:
        net = in_its_dtype(self.net)
        return lambda x, sigma: self.process.denoise(net, x, sigma, label)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.optimizer([p for p in self.net.parameters() if p.requires_grad])
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches:
            return  # a step's rate is that of its first image, however it is cut into micro-batches
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * self.schedule(self.images_seen)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["images_seen"] = self.images_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning steps where the count of micro-batches divides, so they are counted as this run cuts its steps."""
        self.images_seen = checkpoint["images_seen"]
        counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
        more = checkpoint["global_step"] * self.trainer.accumulate_grad_batches - counts["ready"]
        counts.update({name: count + more for name, count in counts.items()})


def in_its_dtype(net: Network) -> Net:
    """The network as a function of a sampler's float64 state."""
    dtype = next(net.parameters()).dtype

    def call(x: Tensor, noise: Tensor, step: Tensor | None, label: Tensor | None, augment: Tensor | None) -> Tensor:
        return net(x.to(dtype), noise.to(dtype), step, label, augment).to(x.dtype)

    return call

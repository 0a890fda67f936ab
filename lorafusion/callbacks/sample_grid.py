"""A grid of samples while training: the same seeds every time, from the averaged weights, as PNG and to W&B."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from lorafusion.callbacks import due
from lorafusion.callbacks.ema import averaged
from lorafusion.denoisers.base import Denoiser
from lorafusion.logger import LogsPictures
from lorafusion.pictures import grid, save_png, to_uint8
from lorafusion.samplers import Sampler


class SampleGrid(Callback):
    """folder:        where the PNG files go, named by the images seen.
    sampler:       draws them.
    every_images:  > 0; also once at the end.
    n:             how many: seeds 0 .. n-1; in class-conditional runs their labels go round the classes.
    """

    def __init__(self, folder: str, sampler: Sampler, every_images: int, n: int = 64):
        self.folder, self.sampler, self.every_images, self.n = Path(folder), sampler, every_images, n
        self._drawn = 0  # images seen at the last grid

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._drawn = denoiser.images_seen

    def on_train_batch_end(self, trainer: Trainer, denoiser: Denoiser, *_: Any) -> None:
        if trainer.is_global_zero and due(trainer, denoiser, self.every_images, self._drawn):
            self._drawn = denoiser.images_seen
            self._draw(trainer, denoiser)

    def _draw(self, trainer: Trainer, denoiser: Denoiser) -> None:
        seeds = torch.arange(self.n)
        classes = denoiser.net.num_classes
        label = None if classes is None else denoiser.one_hot(seeds.to(denoiser.device) % classes)
        denoiser.eval()
        with averaged(trainer, denoiser):
            images = denoiser.sample(self.sampler, seeds, label)
        denoiser.train()
        picture = grid(to_uint8(images))
        save_png(picture, self.folder / f"grid_{denoiser.images_seen:012d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, LogsPictures):  # W&B does, csv does not
                logger.log_picture("samples", picture, denoiser.images_seen)

"""Where EMA meets Lightning: updated after every optimizer step, kept in the checkpoint, in place while validating.

Lightning's own weight averaging does not fit: hooks during validation see raw weights, a checkpoint saved after
``fit`` has lost them, and the decay is a constant.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Callback, Trainer
from torch import Tensor

from lorafusion.callbacks import callbacks_of
from lorafusion.denoisers.base import Denoiser
from lorafusion.ema import EMA


class EMACallback(Callback):
    """Arguments of ``EMA``; averages the network's trainable parameters."""

    def __init__(self, halflife_images: float | None = None, decay: float | None = None, rampup: float | None = None):
        self.settings = {"halflife_images": halflife_images, "decay": decay, "rampup": rampup}
        self.ema: EMA | None = None
        self._restored: dict[str, Tensor] | None = None
        self._images = self._step = 0  # at the last update

    def on_train_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self.restore(denoiser, self._restored)
        self._images, self._step = denoiser.images_seen, trainer.global_step

    def restore(self, denoiser: Denoiser, averages: dict[str, Tensor] | None) -> None:
        """averages: by the names of ``trainable``, as a checkpoint has them; None = start from the weights."""
        weights = trainable(denoiser)
        self.ema = EMA(weights.values(), **self.settings)
        if averages is not None:
            for average, name in zip(self.ema.averages, weights, strict=True):
                average.copy_(averages[name])

    def on_train_batch_end(self, trainer: Trainer, denoiser: Denoiser, *_: Any) -> None:
        if self.ema is None or trainer.global_step == self._step:
            return  # gradients are still being accumulated
        images = denoiser.images_seen
        self.ema.update(trainable(denoiser).values(), images, images - self._images)
        self._images, self._step = images, trainer.global_step

    def on_validation_start(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._swap(denoiser)

    def on_validation_end(self, trainer: Trainer, denoiser: Denoiser) -> None:
        self._swap(denoiser)

    def _swap(self, denoiser: Denoiser) -> None:
        if self.ema is not None:
            self.ema.swap(trainable(denoiser).values())

    @contextmanager
    def applied(self, denoiser: Denoiser) -> Iterator[None]:
        """The averages in place of the weights, for the length of a ``with`` block."""
        self._swap(denoiser)
        try:
            yield
        finally:
            self._swap(denoiser)

    def on_save_checkpoint(self, trainer: Trainer, denoiser: Denoiser, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None:
            checkpoint["ema"] = dict(zip(trainable(denoiser), self.ema.averages, strict=True))

    def on_load_checkpoint(self, trainer: Trainer, denoiser: Denoiser, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("ema")


def trainable(denoiser: Denoiser) -> dict[str, Tensor]:
    """The weights that are averaged, by the names they have in the module's state dict."""
    return {f"net.{name}": p for name, p in denoiser.net.named_parameters() if p.requires_grad}


@contextmanager
def averaged(trainer: Trainer, denoiser: Denoiser) -> Iterator[None]:
    """The run's averages in place of the weights; the raw weights where the run keeps none."""
    if callbacks := callbacks_of(trainer, EMACallback):
        with callbacks[0].applied(denoiser):
            yield
    else:
        yield

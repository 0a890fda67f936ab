"""Where Lightning meets averages, checkpoints, pictures and figures."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from lightning import Callback, Trainer

from lorafusion.denoisers.base import Denoiser

C = TypeVar("C", bound=Callback)


def due(trainer: Trainer, denoiser: Denoiser, every_images: int, last: int) -> bool:
    """Whether images seen passed a multiple of ``every_images`` since ``last``, or training reached its last step."""
    finished = trainer.global_step >= trainer.max_steps > 0
    return denoiser.images_seen // every_images > last // every_images or (finished and denoiser.images_seen > last)


def callbacks_of(trainer: Trainer, kind: type[C]) -> list[C]:
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return [c for c in callbacks if isinstance(c, kind)]


@contextmanager
def aside(trainer: Trainer) -> Iterator[None]:
    """Work between two steps that is not training: callbacks that show or time it look away, by their own ``aside``."""
    with ExitStack() as stack:
        for callback in callbacks_of(trainer, Callback):
            if (aside := getattr(callback, "aside", None)) is not None:
                stack.enter_context(aside())
        yield

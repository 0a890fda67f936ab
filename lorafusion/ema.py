"""Exponential moving average of weights, with its half-life in images.

Knows no Lightning and no training loop: ``update`` is told how many images the step saw. Karras et al. 2022 (EDM),
appendix F.2: half-life in images with a ramp-up, so that it does not depend on the batch size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


class EMA:
    """avg <- beta avg + (1 - beta) weights, beta = 0.5 ^ (batch / halflife).

    weights:          the tensors to average, in a fixed order; their values are copied.
    halflife_images:  > 0. Or
    decay:            beta itself, 0 .. 1, a step, whatever the batch.
    rampup:           the half-life is at most this share of the images seen so far; None = no ramp-up.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        *,
        halflife_images: float | None = None,
        decay: float | None = None,
        rampup: float | None = None,
    ):
        if (halflife_images is None) == (decay is None):
            raise ValueError("ema: give either halflife_images or decay")
        if decay is not None and not 0 <= decay <= 1:
            raise ValueError(f"ema: decay must be 0 .. 1; got {decay}")
        if halflife_images is not None and halflife_images <= 0:
            raise ValueError(f"ema: halflife_images must be above 0; got {halflife_images}")
        self.halflife_images, self.decay, self.rampup = halflife_images, decay, rampup
        self.averages = [w.detach().clone() for w in weights]

    def beta(self, images_seen: int, batch: int) -> float:
        """images_seen: after this step's ``batch`` images."""
        if self.halflife_images is None:
            return self.decay or 0.0
        halflife = self.halflife_images
        if self.rampup is not None:
            halflife = min(halflife, images_seen * self.rampup)
        return 0.5 ** (batch / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, weights: Iterable[Tensor], images_seen: int, batch: int) -> None:
        """One step; ``weights`` in the order of the constructor."""
        torch._foreach_lerp_(self.averages, [w.detach() for w in weights], 1 - self.beta(images_seen, batch))

    @torch.no_grad()
    def swap(self, weights: Iterable[Tensor]) -> None:
        """Exchange ``weights`` and averages in place; a second call undoes the first."""
        for w, average in zip(weights, self.averages, strict=True):
            kept = w.detach().clone()
            w.copy_(average)
            average.copy_(kept)

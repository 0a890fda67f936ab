"""Learning-rate schedules: images seen so far -> factor on the optimizer's learning rate.

Functions of a count, not of their own history, so a resumed run needs no scheduler state.
"""

import math


class Constant:
    """rampup_images: linear ramp from 0 over so many images (Karras et al. 2022, appendix F.2); 0 = none."""

    def __init__(self, rampup_images: int = 0):
        self.rampup_images = rampup_images

    def __call__(self, images: int) -> float:
        return min(images / self.rampup_images, 1.0) if self.rampup_images else 1.0


class Cosine:
    """Linear ramp over ``rampup_images``, then half a cosine down to ``final`` at ``images``, and ``final`` beyond."""

    def __init__(self, images: int, rampup_images: int = 0, final: float = 0.0):
        if not 0 <= rampup_images < images:
            raise ValueError(f"schedule: need 0 <= rampup_images < images; got {rampup_images} and {images}")
        self.images, self.rampup_images, self.final = images, rampup_images, final

    def __call__(self, images: int) -> float:
        if images < self.rampup_images:
            return images / self.rampup_images
        progress = min((images - self.rampup_images) / (self.images - self.rampup_images), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2

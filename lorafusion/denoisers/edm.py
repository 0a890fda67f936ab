"""EDM's denoiser: training images are augmented, and the network is told how. Karras et al. 2022, appendix F.2."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.conditioning import Conditioning
from lorafusion.denoisers.augment import LABELS, Augment
from lorafusion.denoisers.base import Denoiser
from lorafusion.draws import Draws
from lorafusion.processes import Process
from lorafusion.sites import Network


class EDMDenoiser(Denoiser):
    """Arguments of ``Denoiser``, and

    augment:  changes training images, never those of validation; None = not at all. A network with an input for labels
              (backbone.augment_dim=9) is told of the changes; one without is not.
    """

    def __init__(
        self,
        net: Network,
        conditioning: Conditioning,
        process: Process,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[int], float],
        seed: int = 0,
        name: str = "edm",
        label_dropout: float = 0.0,
        augment: Augment | None = None,
    ):
        super().__init__(net, conditioning, process, optimizer, schedule, seed, name, label_dropout)
        self.augment = augment
        self.told = getattr(self.net, "augment_dim", 0)
        if augment is not None and self.told not in (0, LABELS):
            raise ValueError(
                f"edm: augmentation has {LABELS} labels, so backbone.augment_dim={LABELS}; got {self.told}"
            )

    def training_loss(self, batch: dict[str, Tensor], draws: Draws) -> Float[Tensor, "B"]:
        image, changes = batch["image"], None
        if self.augment is not None:
            image, changes = self.augment(image, draws)
        label = self.training_label(batch, draws)
        return self.process.loss(self.net, image, draws, label, changes if self.told else None)

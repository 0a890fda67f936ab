"""What a call of a model says about its condition, and the embedding that we make of it where the model has none."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.sites import Cond


@dataclass(frozen=True, eq=False)
class Given:
    """The condition of one forward pass, as its caller has it. None = not given.

    noise:  noise level or timestep, a number or a tensor () or (B,); whole numbers are also a discrete step's index.
    label:  classes, whole numbers () or (B,), or any real mixture of classes (B, K).
    text:   pooled embedding of a text (B, D).

    A value of one row holds for the whole batch; then its updates are merged into the weights first.
    """

    noise: Tensor | float | int | None = None
    label: Tensor | int | None = None
    text: Tensor | None = None

    def cond(self, like: Tensor, num_classes: int | None) -> Cond:
        """As strategies read it, without an embedding, on the device and in the dtype of ``like``."""
        noise = torch.zeros(1) if self.noise is None else _rows(self.noise)
        step = None if self.noise is None or noise.is_floating_point() else noise.to(like.device, torch.long)
        whole = torch.promote_types(like.dtype, torch.float32)  # bfloat16 takes step 999 for 1000
        return Cond(noise.to(like.device, whole), step, self._one_hot(like, num_classes))

    def _one_hot(self, like: Tensor, num_classes: int | None) -> Float[Tensor, "#B K"] | None:
        if self.label is None:
            return None
        label = self.label if isinstance(self.label, Tensor) else torch.tensor(self.label)
        if label.is_floating_point():
            mixture = label if label.ndim == 2 else label[None]
            if num_classes is not None and mixture.shape[1] != num_classes:
                raise ValueError(
                    f"label has {mixture.shape[1]} classes where drop_in was given num_classes={num_classes}"
                )
            return mixture.to(like)
        if num_classes is None:
            raise ValueError("label is a class number and the number of classes is not known: drop_in(num_classes=...)")
        return F.one_hot(_rows(label).to(like.device, torch.long), num_classes).to(like.dtype)


def _rows(value: Tensor | float | int) -> Tensor:
    value = value if isinstance(value, Tensor) else torch.tensor(value)
    return value[None] if value.ndim == 0 else value


class GivenEmbedding(nn.Module):
    """silu(W1 silu(W0 wave(noise) + C label + T text)): a shared embedding (B, width), trained with the updates.

    num_classes, text_width:  None = it reads none, else it must be given.
    noise_scale:              multiplies the noise level first: 1 for timesteps 0 .. 1000, about 250 for EDM's c_noise.
    """

    def __init__(self, width: int, num_classes: int | None, text_width: int | None, noise_scale: float = 1.0):
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"emb_width must be even, at least 2; got {width}")
        self.width, self.noise_scale = width, float(noise_scale)
        self.layer0, self.layer1 = nn.Linear(width, width), nn.Linear(width, width)
        self.label = None if num_classes is None else nn.Linear(num_classes, width, bias=False)
        self.text = None if text_width is None else nn.Linear(text_width, width, bias=False)

    def forward(self, given: Given, cond: Cond) -> Float[Tensor, "#B E"]:
        weight = self.layer0.weight
        noise = self.noise_scale * _asked("noise", given.noise, cond.noise)  # (#B,)
        parts = [self.layer0(waves(noise, self.width).to(weight))]
        if self.label is not None:
            parts.append(self.label(_asked("label", given.label, cond.label)))
        if self.text is not None:
            parts.append(self.text(_asked("text", given.text, given.text).to(weight)))
        return F.silu(self.layer1(F.silu(torch.stack(torch.broadcast_tensors(*parts)).sum(0))))


def waves(noise: Float[Tensor, "B"], width: int) -> Float[Tensor, "B E"]:
    """[cos, sin](noise * 10000^(-i / (E/2))), in the dtype of ``noise``, whatever the model's. Vaswani et al. 2017."""
    i = torch.arange(width // 2, device=noise.device, dtype=noise.dtype)
    angle = noise[:, None] * torch.exp(-math.log(10_000) * i / (width // 2))  # (B, E/2)
    return torch.cat((angle.cos(), angle.sin()), dim=1)


def _asked(name: str, given: object, value: Tensor | None) -> Tensor:
    if given is None or value is None:
        raise ValueError(f"the call gives no {name}, and the embedding that drop_in made reads one")
    return value

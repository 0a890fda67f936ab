"""Sites: the places where a condition may enter a network.

A network declares its sites; a conditioning strategy fills their slots. Both know this file and never each other, so
every strategy works in every network. A slot is a module called ``slot(x, cond)``. Until a strategy fills it, it holds
a null object that ignores ``cond``, so no forward ever asks which strategy is on.

    ConvSite    norm_in, norm_out            around the norm before the last convolution of a residual block
    AttnSite    norm_in, norm_out, gate      around the attention block's norm, and on the end of its branch
                qkv, proj                    its dense layers: they are never replaced, updates are added (see lora.py)

Names in a state dict belong to the network: filling a slot only adds keys below it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorafusion.rules import broken


@dataclass(frozen=True, eq=False)
class Cond:
    """What one forward pass is conditioned on: made once at the top of a network, passed down explicitly.

    Each has a row for every sample, or one row that the whole batch shares (the noise level, in sampling): then what
    depends on it alone is computed once.

    noise:    noise level as the network sees it: a timestep (DDPM) or c_noise (EDM).
    step:     index of the discrete timestep, 0 .. T-1, before any rescaling. None = the process is continuous.
    label:    one-hot or any real mixture of classes. None = unconditional.
    augment:  augmentation labels (EDM). None = no augmentation.
    emb:      the network's shared embedding of the above. None = nothing attached reads it.
    memo:     what several layers read of this one, kept by the first that needs it; nothing is known at first.
    """

    noise: Float[Tensor, "#B"]
    step: Int[Tensor, "#B"] | None = None
    label: Float[Tensor, "#B K"] | None = None
    augment: Float[Tensor, "#B A"] | None = None
    emb: Float[Tensor, "#B E"] | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)


class Same(nn.Module):
    """Null object of a slot that takes and returns a tensor."""

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return x


class GroupNorm(nn.GroupNorm):
    """norm_out(group_norm(norm_in(x, cond)), cond); parameters as ``nn.GroupNorm``."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__(num_groups, num_channels, eps)
        self.norm_in, self.norm_out = Same(), Same()

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        x = super().forward(self.norm_in(x, cond))
        return self.norm_out(x, cond)


class LayerNorm(nn.LayerNorm):
    """norm_out(layer_norm(norm_in(x, cond)), cond); parameters as ``nn.LayerNorm``."""

    def __init__(self, normalized_shape: list[int], eps: float = 1e-5):
        super().__init__(normalized_shape, eps)
        self.norm_in, self.norm_out = Same(), Same()

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        x = super().forward(self.norm_in(x, cond))
        return self.norm_out(x, cond)


class Linear(nn.Linear):
    """``nn.Linear`` on tokens, as a slot: ``cond`` is ignored until low-rank updates are added (lora.py)."""

    def forward(self, x: Float[Tensor, "B N d_in"], cond: Cond) -> Float[Tensor, "B N d_out"]:
        return F.linear(x, self.weight, self.bias)


class Site:
    """A view on one place of a network: which slots it has, and what a strategy needs to size itself.

    name:         unique within the network, for messages and tables.
    channels:     width of the feature map at the site.
    emb_width:    width E of the network's shared embedding.
    num_steps:    T of a discrete process; None = continuous.
    num_classes:  K; None = unconditional.
    affine:       ``affine(out)`` builds a layer E -> out that is initialised the network's own way.
    """

    slots: tuple[str, ...]

    def __init__(
        self,
        name: str,
        owners: dict[str, nn.Module],
        *,
        channels: int,
        emb_width: int,
        num_steps: int | None,
        num_classes: int | None,
        affine: Callable[[int], nn.Module],
    ):
        self.name, self.channels, self.emb_width = name, channels, emb_width
        self.num_steps, self.num_classes, self.affine = num_steps, num_classes, affine
        self._owners = owners  # slot name -> the module that has the slot as an attribute

    def __getitem__(self, slot: str) -> nn.Module:
        """The module now in ``slot``. Raises KeyError for a slot that this kind of site does not have."""
        if slot not in self.slots:
            raise KeyError(f"{self.name} has no slot {slot!r}; it has {', '.join(self.slots)}")
        return getattr(self._owners[slot], slot)

    def __setitem__(self, slot: str, module: nn.Module) -> None:
        self[slot]  # an unknown name raises here
        setattr(self._owners[slot], slot, module)

    def allow(self, strategy: Any) -> Self:
        """Itself. Raises ValueError where a rule of the strategy's ``refuses`` holds of its settings and this site."""
        if reason := broken(getattr(strategy, "refuses", {}), vars(self) | vars(strategy)):
            raise ValueError(reason)
        return self

    def fill(self, slot: str, module: nn.Module) -> None:
        """Put ``module`` into an empty slot. Raises ValueError where another strategy already is."""
        taken = self[slot]
        if not isinstance(taken, Same):
            raise ValueError(
                f"{self.name}: slot {slot!r} is already taken by {type(taken).__name__}, "
                f"so {type(module).__name__} cannot enter: choose one of the two"
            )
        self[slot] = module


class ConvSite(Site):
    slots = ("norm_in", "norm_out")

    def __init__(self, name: str, norm: nn.Module, **sizes):
        super().__init__(name, dict.fromkeys(self.slots, norm), **sizes)


class AttnSite(Site):
    slots = ("norm_in", "norm_out", "qkv", "proj", "gate")
    dense_slots = ("qkv", "proj")

    def __init__(self, name: str, norm: nn.Module, attention: nn.Module, **sizes):
        owners = {"norm_in": norm, "norm_out": norm, "qkv": attention, "proj": attention, "gate": attention}
        super().__init__(name, owners, **sizes)

    def dense(self, slot: str) -> nn.Linear:
        """The dense layer in ``slot``. Raises TypeError if that slot holds something else."""
        layer = self[slot]
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"{self.name}: slot {slot!r} holds {type(layer).__name__}, not a dense layer")
        return layer


class Network(nn.Module):
    """What denoisers and conditioning ask of a network; ``forward`` gives its raw output F_theta.

    resolution, channels:    of the images, (channels, resolution, resolution).
    num_steps, num_classes:  T of a discrete process, K; None where it has none.
    attends_at:              its setting that lists the sizes at which it attends; None = it always has an AttnSite.
    """

    attends_at: ClassVar[str | None] = None

    resolution: int
    channels: int
    num_steps: int | None
    num_classes: int | None

    def sites(self) -> Iterator[Site]:
        """Every site, in forward order, each with a unique name."""
        raise NotImplementedError

    def add_embedding(self) -> None:
        """Build the shared embedding; a second call changes nothing. Until then ``cond.emb`` is None."""
        raise NotImplementedError

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "#B"],
        step: Int[Tensor, "#B"] | None = None,
        label: Float[Tensor, "#B K"] | None = None,
        augment: Float[Tensor, "#B A"] | None = None,
    ) -> Float[Tensor, "B O H W"]:
        raise NotImplementedError


def per_channel(v: Float[Tensor, "B C"], x: Tensor) -> Tensor:
    """View ``v`` (B, C) so that it broadcasts over a feature map (B, C, H, W) or tokens (B, N, C)."""
    return v[:, :, None, None] if x.ndim == 4 else v[:, None, :]


def zeroed(layer: nn.Module) -> nn.Module:
    """Set the last layer inside ``layer`` to zero, so that what it modulates starts as the identity."""
    last = [m for m in layer.modules() if isinstance(m, nn.Linear)][-1]
    for parameter in last.parameters(recurse=False):
        torch.nn.init.zeros_(parameter)
    return layer

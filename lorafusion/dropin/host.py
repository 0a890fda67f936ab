"""Dense layers of somebody else's model, with updates that read the ambient condition.

A layer changes its class and gains one child, ``adapters``; its weight and bias, their names, its hooks and everybody's
references to it stay. Giving it its class back and taking the child away restores it exactly.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.dropin.ambient import Ambient
from lorafusion.dropin.given import GivenEmbedding
from lorafusion.lora import LowRank, SelectedLowRank
from lorafusion.sites import Site

Dense = nn.Linear | nn.Conv2d


class Adapter(nn.Module):
    """One handle's updates of one layer; to strategies it looks like the dense layer that they update."""

    def __init__(self, host: Dense, ambient: Ambient):
        super().__init__()
        self.ambient = ambient
        self.updates = nn.ModuleDict()
        self.embedding: GivenEmbedding | None = None  # of all layers, in the first one's adapter: where it is ours
        self.out_features, self.in_features = host.weight.flatten(1).shape
        self._host = (host,)  # in a tuple: a parent is no child
        self.within = False  # whether the host's composed weight has it already

    @property
    def weight(self) -> Tensor:
        return self._host[0].weight

    def omegas(self) -> list[tuple[LowRank, Tensor]]:
        cond = self.ambient.cond()
        return [(u, u.omega(cond)) for u in cast(list[LowRank], [*self.updates.values()])]


class Host(nn.Module):
    """What both kinds of layers share.

    composed:  weight and bias with some adapters' updates in them (those that are ``within``); None = the layer's own.
    """

    weight: Tensor
    bias: Tensor | None
    adapters: nn.ModuleDict
    composed: tuple[Tensor, Tensor | None] | None

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (self.weight, self.bias) if self.composed is None else self._composed(self.composed)
        apart: list[tuple[LowRank, Tensor]] = []
        for adapter in self.adapters.values():
            assert isinstance(adapter, Adapter)
            for update, omega in () if adapter.within else adapter.omegas():
                if len(omega) == 1:
                    weight, bias = merged(update, weight, bias, omega)
                elif len(omega) == len(x):
                    apart.append((update, omega))
                else:
                    raise RuntimeError(
                        f"a layer gets a batch of {len(x)} where the condition has {len(omega)} rows; "
                        "read_cond must give one row, or one for each of the layer's samples"
                    )
        y = self.apply_dense(x, weight, bias)
        for update, omega in apart:
            y = y + self.apply_update(update, x, omega)
        return y

    @staticmethod
    def _composed(composed: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        if not torch.compiler.is_compiling() and torch._C._current_autograd_node() is not None:
            raise RuntimeError(
                "a checkpointed block is recomputed within `handle.merged(...)`: call backward outside it"
            )
        return composed

    def apply_dense(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def apply_update(self, update: LowRank, x: Tensor, omega: Tensor) -> Tensor:
        raise NotImplementedError


class HostLinear(Host, nn.Linear):
    def apply_dense(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def apply_update(self, update: LowRank, x: Float[Tensor, "B ... d"], omega: Tensor) -> Tensor:
        y = update.factored(x.reshape(len(x), -1, x.shape[-1]), omega)  # (B, N, d_out)
        return y.reshape(*x.shape[:-1], -1)


class HostConv2d(Host, nn.Conv2d):
    """A convolution k x k is a dense layer on patches, d_in = C k k: A is a convolution k x k, B is 1 x 1."""

    def apply_dense(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)

    def apply_update(self, update: LowRank, x: Float[Tensor, "B C H W"], omega: Tensor) -> Float[Tensor, "B D h w"]:
        if isinstance(update, SelectedLowRank):
            return self._on_patches(update, x, omega)
        gate = update.gate(omega)  # (B, m r)
        y = self._conv_forward(x, update.down.view(-1, *self.weight.shape[1:]), None)  # (B, m r, h, w)
        y = F.conv2d(y * gate[:, :, None, None], update.up[:, :, None, None])  # (B, D, h, w)
        return y if update.bias is None else y + (gate @ update.bias)[:, :, None, None]

    def _on_patches(self, update: LowRank, x: Float[Tensor, "B C H W"], omega: Tensor) -> Float[Tensor, "B D h w"]:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = F.pad(x, self._reversed_padding_repeated_twice, mode)
        sizes = zip(x.shape[2:], self.kernel_size, self.dilation, self.stride, strict=True)
        h, _ = [(n - d * (k - 1) - 1) // s + 1 for n, k, d, s in sizes]
        patches = F.unfold(x, self.kernel_size, self.dilation, stride=self.stride)  # (B, C k k, h w)
        return update.factored(patches.transpose(1, 2), omega).transpose(1, 2).unflatten(2, (h, -1))


HOSTS: dict[type[nn.Module], type[Host]] = {nn.Linear: HostLinear, nn.Conv2d: HostConv2d}


class DenseSite(Site):
    """One layer as a site of the strategies that update dense layers."""

    slots = dense_slots = ("dense",)

    def __init__(self, name: str, adapter: Adapter, **sizes: int | None):
        owner = nn.Module()
        owner.dense = adapter
        super().__init__(
            name,
            {"dense": owner},
            channels=adapter.in_features,
            affine=_no_affine,
            **sizes,  # pyright: ignore[reportArgumentType]
        )

    def dense(self, slot: str) -> Adapter:
        return cast(Adapter, self[slot])


def _no_affine(out: int) -> nn.Module:
    raise TypeError("this strategy is none that updates dense layers (UCLoRA, TimeLoRA, ClassLoRA)")


def merged(update: LowRank, weight: Tensor, bias: Tensor | None, omega: Tensor) -> tuple[Tensor, Tensor | None]:
    """A layer's weight, of whatever shape, and bias with the update of one row of omega."""
    flat, bias = update.merge(weight.flatten(1), bias, omega)
    return flat.view_as(weight), bias


def become_host(layer: Dense) -> Host:
    """Change the class of a plain ``nn.Linear`` or ``nn.Conv2d``; one that is a host already stays what it is."""
    if not isinstance(layer, Host):
        layer.__class__ = HOSTS[type(layer)]  # pyright: ignore[reportAttributeAccessIssue]
        host = cast(Host, layer)
        host.adapters, host.composed = nn.ModuleDict().train(layer.training), None
    return cast(Host, layer)


def leave_host(host: Host) -> None:
    """Undo ``become_host`` once the last adapter is gone."""
    if not host.adapters:
        del host.adapters, host.composed
        host.__class__ = next(plain for plain, kind in HOSTS.items() if kind is type(host))  # pyright: ignore

"""Low-rank updates whose mixture depends on the condition: the arithmetic that all LoRA strategies share.

    W(cond) = W + sum_{i=1..m} omega_i(cond) B_i A_i          A_i: r x d_in    B_i: d_out x r

No per-sample weight is ever built: with the A_i stacked to (m r) x d_in and the B_i to d_out x (m r),

    W(cond) x = W x + B ( repeat(omega, r) * (A x) ).

Strategies differ only in omega: Cond -> (B, m). Source: Choi et al., "Simple Drop-in LoRA Conditioning on Attention
Layers Will Improve Your Diffusion Model", TMLR 2024, section 3.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorafusion.sites import AttnSite, Cond, Linear


class LowRank(nn.Module):
    """One named update of a dense layer: x -> B (repeat(omega(cond), r) * (A x)), zero at init.

    d_in, d_out:  size of the dense layer it updates.
    rank:         r, at least 1.
    num_bases:    m, at least 1: the width of omega's output.
    omega:        module Cond -> (B, m).
    bias:         add a composed bias, repeat(omega, r) @ bias with bias (m r, d_out), zero at init.
    scale:        'fixed' = 1; 'learned' = one trainable scalar that starts at 1.

    ``strength`` (1.0) multiplies the whole update; it is set by hand, not trained and not saved.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        rank: int,
        num_bases: int,
        omega: nn.Module,
        bias: bool = False,
        scale: Literal["fixed", "learned"] = "fixed",
    ):
        super().__init__()
        if rank < 1 or num_bases < 1:
            raise ValueError(f"rank and num_bases must be at least 1; got rank={rank}, num_bases={num_bases}")
        if scale not in ("fixed", "learned"):
            raise ValueError(f"scale must be 'fixed' or 'learned'; got {scale!r}")
        self.rank, self.num_bases, self.strength = rank, num_bases, 1.0
        self.omega = omega
        self.down = nn.Parameter(torch.randn(num_bases * rank, d_in) / rank)  # A ~ N(0, (1/r)^2)
        self.up = nn.Parameter(torch.zeros(d_out, num_bases * rank))  # B = 0: a fresh update is exactly zero
        self.bias = nn.Parameter(torch.zeros(num_bases * rank, d_out)) if bias else None
        self.scale = nn.Parameter(torch.ones(())) if scale == "learned" else None

    def mixture(self, cond: Cond) -> Float[Tensor, "B m"]:
        """How much of each base every sample gets."""
        return self.omega(cond)

    def gate(self, omega: Float[Tensor, "B m"]) -> Float[Tensor, "B mr"]:
        """repeat(omega, r), times the scale and the strength."""
        gate = omega.repeat_interleave(self.rank, dim=1)  # (B, m r)
        return self._scaled(gate)

    def _scaled(self, value: Tensor) -> Tensor:
        value = value if self.scale is None else value * self.scale
        return value if self.strength == 1 else value * self.strength

    def forward(self, x: Float[Tensor, "B N d_in"], cond: Cond) -> Float[Tensor, "B N d_out"]:
        return self.factored(x, self.omega(cond))

    def factored(self, x: Float[Tensor, "B N d_in"], omega: Tensor) -> Float[Tensor, "B N d_out"]:
        """The update of x, for what the omega module gave."""
        gate = self.gate(omega)  # (B, m r)
        y = F.linear(x, self.down) * gate[:, None]  # (B, N, m r)
        y = F.linear(y, self.up)  # (B, N, d_out)
        return y if self.bias is None else y + (gate @ self.bias)[:, None]

    def merge(self, weight: Tensor, bias: Tensor | None, omega: Tensor) -> tuple[Tensor, Tensor | None]:
        """A dense layer's weight (d_out, d_in) and bias (d_out,) with the update added, for an omega of one row."""
        gate = self.gate(omega)  # (1, m r)
        return torch.addmm(weight, self.up * gate, self.down), _shifted(bias, self.bias, gate)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, num_bases={self.num_bases}"


class SelectedLowRank(LowRank):
    """A LowRank whose omega is one-hot: omega: Cond -> (B,) is the index of the one base that each sample uses.

    The same function as LowRank with omega = one_hot(index), but it gathers r rows instead of multiplying m r of them:
    what makes one LoRA for each of 4001 timesteps affordable.
    """

    def mixture(self, cond: Cond) -> Float[Tensor, "B m"]:
        return F.one_hot(self.omega(cond), self.num_bases).to(self.down.dtype)  # (B, m)

    def factored(self, x: Float[Tensor, "B N d_in"], omega: Int[Tensor, "B"]) -> Float[Tensor, "B N d_out"]:
        down, up, bias = self._bases(omega)
        y = x @ down.transpose(1, 2) @ up.permute(1, 2, 0)  # (B, N, d_out)
        return y if bias is None else y + bias[:, None]

    def merge(self, weight: Tensor, bias: Tensor | None, omega: Int[Tensor, "1"]) -> tuple[Tensor, Tensor | None]:
        down, up, offset = self._bases(omega)
        weight = torch.addmm(weight, up[:, 0], down[0])
        if offset is None:
            return weight, bias
        return weight, offset[0] if bias is None else bias + offset[0]

    def _bases(self, index: Int[Tensor, "B"]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What each sample uses: A (B, r, d_in), B (d_out, B, r), bias (B, d_out); the scale is in B and the bias."""
        bases = (self.num_bases, self.rank)
        down, up = self.down.unflatten(0, bases)[index], self.up.unflatten(1, bases)[:, index]
        bias = None if self.bias is None else self.bias.unflatten(0, bases)[index].sum(1)
        return down, self._scaled(up), None if bias is None else self._scaled(bias)


class LoRALinear(Linear):
    """A network's dense layer plus named low-rank updates: W x + b + sum over updates of update(x, cond).

    It takes over the weight and bias of the layer that it replaces, so their names in a state dict stay what they were
    and a base checkpoint loads before or after attaching.

    An update whose condition has one row, which the whole batch shares (a noise level, in sampling), is merged into
    the weight first: then conditioning costs next to nothing.
    """

    def __init__(self, dense: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.weight, self.bias = dense.weight, dense.bias
        self.updates = nn.ModuleDict()

    def forward(self, x: Float[Tensor, "B N d_in"], cond: Cond) -> Float[Tensor, "B N d_out"]:
        weight, bias = self.weight, self.bias
        apart: list[Tensor] = []
        for update in self.updates.values():
            assert isinstance(update, LowRank)
            omega = update.omega(cond)
            if len(omega) == 1:
                weight, bias = update.merge(weight, bias, omega)
            else:
                apart.append(update.factored(x, omega))
        y = F.linear(x, weight, bias)  # (B, N, d_out)
        for part in apart:
            y = y + part
        return y


def _shifted(bias: Tensor | None, rows: Tensor | None, gate: Float[Tensor, "1 mr"]) -> Tensor | None:
    """bias + gate @ rows, where either may be missing."""
    if rows is None:
        return bias
    return (gate @ rows)[0] if bias is None else torch.addmv(bias, rows.t(), gate[0].to(rows))


class JointOmega(nn.Module):
    """An omega that all layers of a network compute in one go: dozens of small products cost more than a few large.

    The first layer that asks does it for its ``peers`` and leaves the result in ``cond.memo``. Every layer keeps
    its own weights. Subclasses say how with ``together``, and which may be joined with ``alike``.
    """

    def __init__(self):
        super().__init__()
        self.peers: list[Any] = [self]  # a plain list: each peer is registered in its own layer alone
        self.place = 0

    def alike(self) -> Hashable:
        """Equal where two can be computed together."""
        raise NotImplementedError

    @staticmethod
    def together(peers: Sequence[Any], cond: Cond) -> Sequence[Float[Tensor, "B m"]]:
        """omega of every peer."""
        raise NotImplementedError

    def forward(self, cond: Cond) -> Float[Tensor, "B m"]:
        key = self.peers[0]
        if key not in cond.memo:
            cond.memo[key] = self.together(self.peers, cond)
        return cond.memo[key][self.place]


def join_omegas(net: nn.Module) -> None:
    """Tell the omegas of ``net`` that can be computed together of each other."""
    groups: dict[Hashable, list[JointOmega]] = defaultdict(list)
    for module in net.modules():
        if isinstance(module, JointOmega):
            groups[type(module), module.alike()].append(module)
    for peers in groups.values():
        for place, omega in enumerate(peers):
            omega.peers, omega.place = peers, place


def add_update(site: AttnSite, slot: str, name: str, update: LowRank) -> None:
    """Add ``update`` to the dense layer in ``slot``; updates of different names add up.

    Raises ValueError if the layer already has an update of this name, TypeError if the slot holds no dense layer.
    """
    dense = site.dense(slot)
    if not hasattr(dense, "updates"):
        dense = LoRALinear(dense)
        site[slot] = dense
    assert isinstance(dense.updates, nn.ModuleDict)
    if name in dense.updates:
        raise ValueError(f"{site.name}: {slot!r} already has an update named {name!r}")
    dense.updates[name] = update.to(dense.weight)


def linear_knots(num_steps: int, num_bases: int) -> Float[Tensor, "T m"]:
    """Table of omega(t), t = 1..T, that interpolates linearly between m knots spread evenly over 1..T.

    For t_i <= t < t_{i+1}: omega_i = (t_{i+1} - t) / (t_{i+1} - t_i), omega_{i+1} = (t - t_i) / (t_{i+1} - t_i).
    Every row sums to 1. Row t - 1 holds step t. With m = 1 the table is all ones.
    """
    if num_bases == 1:
        return torch.ones(num_steps, 1)
    t = torch.arange(num_steps, dtype=torch.float64)  # step t = 1..T stands in row t - 1
    spacing = max(num_steps - 1, 1) / (num_bases - 1)
    position = t / spacing  # in units of knots: 0 .. m-1
    table = (1 - (position[:, None] - torch.arange(num_bases)).abs()).clamp(min=0)  # hat functions
    return table.to(torch.get_default_dtype())


def unit_rows(rows: int, num_bases: int) -> Float[Tensor, "rows m"]:
    """Random table with rows of unit expected square length: N(0, 1/m)."""
    return torch.randn(rows, num_bases) / math.sqrt(num_bases)

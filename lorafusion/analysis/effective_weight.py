"""How much a dense layer's low-rank updates change its weight, without building a weight.

With the updates side by side, U(g) = B diag(g) A for gates g, and all that is asked of U is quadratic in g:

    |U(g)|^2 = g' ((B' B) * (A A')) g      <W, U(g)> = g' diag(B' W A')      (Frobenius; * elementwise, ' transposed)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorafusion.analysis.layers import mixture
from lorafusion.lora import LoRALinear, LowRank
from lorafusion.sites import Cond


class EffectiveWeight:
    """W + U of one layer under C x N conditions, in float64; composed biases are no part of a weight.

    conds:  their conditions, row by row, in as many parts as one likes.
    shape:  (C, N) how the rows are told apart.
    """

    @torch.no_grad()
    def __init__(self, layer: LoRALinear, conds: Sequence[Cond], shape: tuple[int, int]):
        gates, ups, downs = [], [], []
        for update in layer.updates.values():
            assert isinstance(update, LowRank)
            gate = torch.cat([update.gate(mixture(update, cond)) for cond in conds]).double().cpu()  # (C N, m r)
            used = (gate != 0).any(dim=0)  # of one LoRA for each of 4001 steps, few are
            gates.append(gate[:, used])
            ups.append(update.up.double().cpu()[:, used])
            downs.append(update.down.double().cpu()[used])
        weight, up, down = layer.weight.double().cpu(), torch.cat(ups, dim=1), torch.cat(downs)
        self.gate = torch.cat(gates, dim=1).unflatten(0, shape)  # (C, N, S)
        self.gram = (up.t() @ up) * (down @ down.t())  # (S, S)
        self.along = (up * (weight @ down.t())).sum(0)  # (S,)
        self.norm = weight.norm()

    def response(self) -> Float[Tensor, "C N"]:
        """|U| / |W| under each condition; infinite where W is zero, as some networks begin, and U is not."""
        return _ratio(self._size(self.gate), self.norm)

    def movement(self, dim: int) -> Float[Tensor, "C N"]:
        """|W(c) - mean W| / |mean W|, the mean over the conditions along ``dim``: 0 where the layer ignores them."""
        mean = self.gate.mean(dim, keepdim=True)
        squared = self.norm**2 + 2 * mean @ self.along + self._size(mean) ** 2
        return _ratio(self._size(self.gate - mean), squared.clamp(min=0).sqrt())

    def _size(self, gate: Float[Tensor, "*n S"]) -> Float[Tensor, "*n"]:
        """|U(g)|"""
        return ((gate @ self.gram) * gate).sum(-1).clamp(min=0).sqrt()


def _ratio(of: Tensor, to: Tensor) -> Tensor:
    """of / to; nothing of nothing is 0."""
    return torch.where(of == 0, 0.0, of / to)

"""UC-LoRA: LoRA on the attention's dense layers, mixed by an MLP on the shared embedding of noise, class and
augmentation, so it also serves continuous noise levels. Choi et al. 2024, section 3.3."""

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.lora import JointOmega, LowRank, add_update
from lorafusion.sites import AttnSite, Cond


class UCLoRA:
    """omega(cond) = MLP(emb), one MLP for every dense layer.

    rank:       r, at least 1.
    num_bases:  m, at least 1.
    mlp:        widths (w1, w2, ...) of the hidden layers, each a multiple of its GroupNorm's min(32, w // 4) groups.
    bias:       the composed bias of the authors' code.
    scale:      'fixed' = 1, 'learned' = one trainable scalar for each layer.
    """

    needs_emb = True
    refuses: ClassVar = {
        "rank < 1": "uc_lora: rank must be at least 1",
        "num_bases < 1": "uc_lora: num_bases must be at least 1",
    }

    def __init__(
        self,
        rank: int = 4,
        num_bases: int = 18,
        mlp: Sequence[int] = (128, 64),
        bias: bool = True,
        scale: Literal["fixed", "learned"] = "fixed",
    ):
        self.rank, self.num_bases, self.mlp, self.bias = rank, num_bases, tuple(mlp), bias
        self.scale: Literal["fixed", "learned"] = scale

    def attach(self, site: AttnSite) -> None:
        site.allow(self)
        for slot in site.dense_slots:
            add_update(site, slot, "uc_lora", self._update(site.dense(slot), site.emb_width))

    def _update(self, dense: nn.Linear, emb_width: int) -> LowRank:
        return LowRank(
            dense.in_features,
            dense.out_features,
            rank=self.rank,
            num_bases=self.num_bases,
            omega=EmbMLP(emb_width, self.mlp, self.num_bases),
            bias=self.bias,
            scale=self.scale,
        )


class EmbMLP(JointOmega):
    """Linear(E, w1) - GroupNorm - SiLU - Linear(w1, w2) - GroupNorm - SiLU - ... - Linear(w, m)."""

    layers: nn.Sequential

    def __init__(self, emb_width: int, widths: Sequence[int], num_bases: int):
        super().__init__()
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise((emb_width, *widths)):
            layers += [nn.Linear(d_in, d_out), nn.GroupNorm(max(1, min(32, d_out // 4)), d_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear((emb_width, *widths)[-1], num_bases))

    def alike(self) -> Hashable:
        return tuple(tuple(p.shape) for p in self.parameters())

    @staticmethod
    def together(peers: Sequence["EmbMLP"], cond: Cond) -> Sequence[Float[Tensor, "B m"]]:
        """L peers: layer by layer, the peers' channels side by side in the norms, their products batched."""
        assert cond.emb is not None
        x = cond.emb.t().expand(len(peers), -1, -1)  # (L, E, B): weights on the left, for their gradients need no copy
        for layers in zip(*(peer.layers for peer in peers), strict=True):
            kind = layers[0]
            if isinstance(kind, nn.Linear):
                weight, bias = (torch.stack([getattr(layer, k) for layer in layers]) for k in ("weight", "bias"))
                x = torch.baddbmm(bias[:, :, None], weight, x)  # (L, w, B)
            elif isinstance(kind, nn.GroupNorm):
                x = x.flatten(0, 1).t()  # (B, L w)
                weight, bias = (torch.cat([getattr(layer, k) for layer in layers]) for k in ("weight", "bias"))
                x = F.group_norm(x, len(peers) * kind.num_groups, weight, bias, kind.eps)
                x = x.t().unflatten(0, (len(peers), -1))  # (L, w, B)
            else:
                x = kind(x)
        return x.transpose(1, 2).unbind()

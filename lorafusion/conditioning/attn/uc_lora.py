"""UC-LoRA: LoRA on the attention's dense layers, mixed by an MLP on the shared embedding of noise, class and
augmentation, so it also serves continuous noise levels. Choi et al. 2024, section 3.3."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lorafusion.lora import LowRank, add_update
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


class EmbMLP(nn.Module):
    """Linear(E, w1) - GroupNorm - SiLU - Linear(w1, w2) - GroupNorm - SiLU - ... - Linear(w, m)."""

    def __init__(self, emb_width: int, widths: Sequence[int], num_bases: int):
        super().__init__()
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise((emb_width, *widths)):
            layers += [nn.Linear(d_in, d_out), nn.GroupNorm(max(1, min(32, d_out // 4)), d_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear((emb_width, *widths)[-1], num_bases))

    def forward(self, cond: Cond) -> Tensor:
        return self.layers(cond.emb)  # (B, m)

"""ClassLoRA: LoRA on the attention's dense layers, mixed by the class label. Choi et al. 2024, section 3.2."""

from typing import ClassVar, cast

from torch import Tensor, nn

from lorafusion.lora import LowRank, add_update, unit_rows
from lorafusion.sites import AttnSite, Cond


class ClassLoRA:
    """omega(y) is the label vector itself: one LoRA a class, and any real mixture of classes is a mixture of LoRAs.

    rank:           r, at least 1.
    compositional:  True = omega is label @ table, a trained table (K, m): for many classes.
    num_bases:      m of the compositional form; None = K.
    """

    needs_emb = False
    refuses: ClassVar = {
        "num_classes is None": (
            "class_lora reads a class label and this network has none; "
            "set its number of classes (backbone.num_classes='${data.num_classes}')"
        ),
        "rank < 1": "class_lora: rank must be at least 1",
        "compositional and num_bases is not None and num_bases < 1": "class_lora: num_bases must be at least 1",
    }

    def __init__(self, rank: int = 4, compositional: bool = False, num_bases: int | None = None):
        self.rank, self.compositional, self.num_bases = rank, compositional, num_bases

    def attach(self, site: AttnSite) -> None:
        num_classes = cast(int, site.allow(self).num_classes)
        for slot in site.dense_slots:
            add_update(site, slot, "class_lora", self._update(site.dense(slot), num_classes))

    def _update(self, dense: nn.Linear, num_classes: int) -> LowRank:
        m = self.num_bases if self.compositional and self.num_bases is not None else num_classes
        omega = LabelTable(unit_rows(num_classes, m)) if self.compositional else Label()
        return LowRank(dense.in_features, dense.out_features, rank=self.rank, num_bases=m, omega=omega)


class Label(nn.Module):
    """The label vector itself, (B, K)."""

    def forward(self, cond: Cond) -> Tensor:
        return _label(cond)


class LabelTable(nn.Module):
    def __init__(self, table: Tensor):
        super().__init__()
        self.table = nn.Parameter(table)  # (K, m)

    def forward(self, cond: Cond) -> Tensor:
        return _label(cond) @ self.table  # (B, m)


def _label(cond: Cond) -> Tensor:
    if cond.label is None:
        raise ValueError("class_lora: the condition has no label")
    return cond.label

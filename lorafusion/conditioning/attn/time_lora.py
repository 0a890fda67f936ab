"""TimeLoRA: LoRA on the attention's dense layers, mixed by the discrete timestep. Choi et al. 2024, section 3.1."""

from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from lorafusion.lora import LowRank, SelectedLowRank, add_update, linear_knots, unit_rows
from lorafusion.sites import AttnSite, Cond


class TimeLoRA:
    """omega(t) is row t of a trained table, or one-hot: a LoRA of its own for every step.

    rank:           r, at least 1.
    num_bases:      m, 1 .. T; not used by the non-compositional form, where m = T.
    init:           'linear' = the table interpolates between m knots; 'random' = N(0, 1/m). Then trained freely.
    compositional:  False = omega is one-hot(t).
    """

    needs_emb = False
    refuses: ClassVar = {
        "num_steps is None": (
            "time_lora reads a discrete timestep and this process is continuous; "
            "use uc_lora, or a discrete process (process=ddpm)"
        ),
        "rank < 1": "time_lora: rank must be at least 1",
        "compositional and num_bases < 1": "time_lora: num_bases must be at least 1",
    }

    def __init__(
        self,
        rank: int = 4,
        num_bases: int = 11,
        init: Literal["linear", "random"] = "linear",
        compositional: bool = True,
    ):
        if init not in ("linear", "random"):
            raise ValueError(f"time_lora: init must be 'linear' or 'random'; got {init!r}")
        self.rank, self.num_bases, self.init, self.compositional = rank, num_bases, init, compositional

    def attach(self, site: AttnSite) -> None:
        num_steps = cast(int, site.allow(self).num_steps)
        for slot in site.dense_slots:
            add_update(site, slot, "time_lora", self._update(site.dense(slot), num_steps))

    def _update(self, dense: nn.Linear, num_steps: int) -> LowRank:
        if not self.compositional:
            return SelectedLowRank(
                dense.in_features, dense.out_features, rank=self.rank, num_bases=num_steps, omega=Step()
            )
        make = linear_knots if self.init == "linear" else unit_rows
        omega = StepTable(make(num_steps, self.num_bases))
        return LowRank(dense.in_features, dense.out_features, rank=self.rank, num_bases=self.num_bases, omega=omega)


class Step(nn.Module):
    """The index of the step itself, (B,)."""

    def forward(self, cond: Cond) -> Tensor:
        return _step(cond)


class StepTable(nn.Module):
    def __init__(self, table: Tensor):
        super().__init__()
        self.table = nn.Parameter(table)  # (T, m)

    def forward(self, cond: Cond) -> Tensor:
        return self.table[_step(cond)]  # (B, m)


def _step(cond: Cond) -> Tensor:
    if cond.step is None:
        raise ValueError("time_lora: the condition has no discrete step")
    return cond.step

"""adaLN: the attention block's norm is scaled and shifted by the embedding, its branch optionally gated.

Peebles & Xie 2023 (DiT), section 3.2: adaLN, and adaLN-Zero with the gate. Table 3 of Choi et al. 2024 compares LoRA
with it.
"""

from torch import Tensor, nn

from lorafusion.conditioning.conv.scale_shift import EmbScaleShift
from lorafusion.sites import AttnSite, Cond, per_channel, zeroed


class AdaLN:
    """gate: also multiply the branch by gate(emb), zero at init, so that the block starts as x -> x (adaLN-Zero)."""

    needs_emb = True

    def __init__(self, gate: bool = False):
        self.gate = gate

    def attach(self, site: AttnSite) -> None:
        site.fill("norm_out", EmbScaleShift(zeroed(site.affine(2 * site.channels))))
        if self.gate:
            site.fill("gate", EmbGate(zeroed(site.affine(site.channels))))


class EmbGate(nn.Module):
    def __init__(self, affine: nn.Module):
        super().__init__()
        self.affine = affine

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return x * per_channel(self.affine(cond.emb), x)

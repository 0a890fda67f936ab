"""Shift: norm(x + shift(emb)). What nano calls time embedding, and EDM's DDPM++ does."""

from torch import Tensor, nn

from lorafusion.sites import Cond, ConvSite, per_channel


class Shift:
    needs_emb = True

    def attach(self, site: ConvSite) -> None:
        site.fill("norm_in", EmbShift(site.affine(site.channels)))


class EmbShift(nn.Module):
    def __init__(self, affine: nn.Module):
        super().__init__()
        self.affine = affine

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return x + per_channel(self.affine(cond.emb), x)

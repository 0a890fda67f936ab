"""Scale-and-shift: norm(x) * (1 + scale(emb)) + shift(emb). Nichol & Dhariwal 2021 (IDDPM), section 3."""

from torch import Tensor, nn

from lorafusion.sites import Cond, ConvSite, per_channel


class ScaleShift:
    needs_emb = True

    def attach(self, site: ConvSite) -> None:
        site.fill("norm_out", EmbScaleShift(site.affine(2 * site.channels)))


class EmbScaleShift(nn.Module):
    def __init__(self, affine: nn.Module):
        super().__init__()
        self.affine = affine

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        scale, shift = per_channel(self.affine(cond.emb), x).tensor_split(2, dim=1 if x.ndim == 4 else 2)
        return x * (1 + scale) + shift

"""One place of each kind that a strategy can enter, without a network around it: 8 channels, embedding width 6."""

from torch import nn

from lorafusion.backbones.attention import AttentionBlock
from lorafusion.sites import AttnSite, ConvSite

C, E = 8, 6


def attention(num_steps: int | None = None, num_classes: int | None = None) -> tuple[AttentionBlock, AttnSite]:
    """An attention block whose output layer is not zero, so that what enters it shows."""
    block = AttentionBlock(C, heads=2, groups=2, skip_scale=0.7)
    nn.init.normal_(block.proj.weight)
    site = block.site("here", emb_width=E, affine=affine, num_steps=num_steps, num_classes=num_classes)
    return block, site


def convolution(norm: nn.Module) -> ConvSite:
    return ConvSite("here", norm, channels=C, emb_width=E, affine=affine, num_steps=None, num_classes=None)


def affine(out: int) -> nn.Linear:
    return nn.Linear(E, out)

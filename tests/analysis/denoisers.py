"""Small denoisers of every kind, untrained or with all weights moved."""

import torch

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.schedule import Constant
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.edm import EDM


def nano(*attn, process=None, num_classes: int | None = None, conv=None, seed: int = 0) -> Denoiser:
    """The tiny network at 8 px: LoRA layers at enc.1, enc.2, dec.0 and dec.1, two each."""
    process = DDPM(40) if process is None else process
    torch.manual_seed(seed)
    net = NanoUNet(8, 1, (4, 4, 8), (4, 2), process.num_steps, num_classes)
    conditioning = Conditioning([Shift()] if conv is None else conv, attn)
    return Denoiser(net, conditioning, process, torch.optim.Adam, Constant()).eval()


def moved(denoiser: Denoiser, seed: int = 1, by: float = 0.3) -> Denoiser:
    """In place: every weight, as training would."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += by * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
    denoiser.images_seen = 1000
    return denoiser


def edm(*attn, **more) -> Denoiser:
    return nano(*attn, process=EDM(), **more)

"""What a forward and a training step cost, in counters that have no noise: aten calls and floating-point operations.

The bounds on calls are the figures of this code, so that they can only fall; the original implementation makes 610 and
1442 calls for DDPM++ without LoRA (sampling forward, training step), and 826 and 1946 with it.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.conditioning.conv.shift import Shift
from tests.calls import Calls


def edm(width: int, lora: bool) -> torch.nn.Module:
    net = DDPMpp(model_channels=width, dropout=0.13, augment_dim=9)
    return Conditioning([Shift()], [UCLoRA(rank=4, num_bases=18)] if lora else []).attach(net)


def iddpm(width: int, lora: bool) -> torch.nn.Module:
    net = IDDPMUNet(model_channels=width, dropout=0.3, num_steps=4001)
    return Conditioning([ScaleShift()], [TimeLoRA(rank=4, num_bases=11)] if lora else []).attach(net)


def inputs(memory_format: torch.memory_format = torch.contiguous_format) -> tuple:
    x = torch.randn(2, 3, 32, 32).to(memory_format=memory_format)
    return x, torch.rand(2), torch.zeros(2, dtype=torch.long), None, torch.randn(2, 9)


def run(net: torch.nn.Module, batch: tuple, *, train: bool) -> None:
    """A forward, or a forward and a backward."""
    with torch.set_grad_enabled(train):
        out = net.train(train)(*batch)
    if train:
        out.square().mean().backward()


# Calls of a sampling forward, where the batch shares its noise level, and of a training step, where it does not; in
# channels_last memory and in contiguous memory. To be reached for EDM with LoRA: at most 500 and 1480.
CALLS = {
    (edm, False): ((421, 1151), (427, 1169)),
    (edm, True): ((486, 1428), (492, 1452)),
    (iddpm, False): ((459, 1373), (474, 1418)),
    (iddpm, True): ((579, 1883), (594, 1943)),
}


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(("make", "lora"), CALLS)
def test_calls(make, lora, memory):
    """On a narrow network: the number does not depend on the width."""
    net, (x, noise, step, *more) = make(32, lora).to(memory_format=memory), inputs(memory)
    sampling = (x, noise[:1], step[:1], None, None)
    batches, bounds = (sampling, (x, noise, step, *more)), CALLS[make, lora][memory == torch.contiguous_format]
    for batch, most in zip(batches, bounds, strict=True):
        with Calls() as calls:
            run(net, batch, train=batch is not sampling)
        assert calls.total <= most, calls.counts.most_common()


def flops(make, lora: bool, *, train: bool) -> int:
    """Of one image."""
    with torch.device("meta"):
        net, batch = make(128, lora), inputs()
        with FlopCounterMode(display=False) as counter:
            run(net, batch, train=train)
    return counter.get_total_flops() // 2


def conv(c_in: int, c_out: int, size: int, kernel: int = 3) -> int:
    return 2 * kernel**2 * c_in * c_out * size**2


def attention(c: int, size: int) -> int:
    return conv(c, 3 * c, size, 1) + 2 * 2 * c * size**4 + conv(c, c, size, 1)


def official_edm() -> int:
    """Forward of one image: the convolutions, dense layers and attentions of EDM's DDPM++ as its configuration says."""

    def block(c_in: int, c_out: int, size: int, *, skip: bool = False) -> int:
        total = conv(c_in, c_out, size) + conv(c_out, c_out, size) + 2 * 512 * c_out
        return total + (conv(c_in, c_out, size, 1) if skip or c_in != c_out else 0)

    total = 2 * 9 * 128 + 2 * 128 * 512 + 2 * 512 * 512 + conv(3, 128, 32) + conv(256, 3, 32)
    total += block(128, 256, 32) + 3 * block(256, 256, 32)
    total += sum(block(256, 256, size, skip=True) + 4 * block(256, 256, size) for size in (16, 8))
    total += 2 * block(256, 256, 8) + sum(block(256, 256, size, skip=True) for size in (16, 32))
    total += sum(5 * block(512, 256, size) for size in (8, 16)) + 4 * block(512, 256, 32) + block(384, 256, 32)
    return total + 5 * attention(256, 16) + attention(256, 8)


def uc_lora(size: int) -> int:
    """Of an attention block: A, B, the composed bias and the MLP, on C -> 3C and C -> C."""
    mlp = 2 * (512 * 128 + 128 * 64 + 64 * 18)
    return sum(2 * size**2 * 72 * (256 + out) + 2 * 72 * out + mlp for out in (768, 256))


def test_the_formula_is_the_published_figure():
    assert official_edm() / 1e9 == pytest.approx(42.38, abs=0.005)
    assert (5 * uc_lora(16) + uc_lora(8)) / official_edm() == pytest.approx(0.0071, abs=5e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_edm_flops_are_not_above_the_official_formula(lora):
    """We save where a 1 x 1 convolution goes before the upsampling, at a quarter of the pixels, and nothing else."""
    formula = official_edm() + (5 * uc_lora(16) + uc_lora(8) if lora else 0)
    saved = sum(conv(256, 256, size, 1) * 3 // 4 for size in (16, 32))
    assert flops(edm, lora, train=False) == formula - saved
    assert flops(edm, lora, train=True) <= 3 * formula


@pytest.mark.parametrize(("lora", "published"), [(False, 16.77e9), (True, 16.77e9 * 1.03)])
def test_iddpm_flops_are_not_above_the_published_figure(lora, published):
    assert flops(iddpm, lora, train=False) <= published * 1.0003  # 16.77 and 3.0 % are rounded

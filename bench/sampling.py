"""Sampling with a DDPM++ and LoRA: images/s of a denoiser beside a plain loop over the same network.

python bench/sampling.py --width 128 --batch 2 --steps 1      the paper's width; an image is 2 steps - 1 evaluations

The plain loop gives every image its own noise level, as the papers' code does, so no LoRA is merged into its weights.
"""

import argparse
import copy
from functools import partial
from itertools import pairwise

import abab
import torch
from torch import Tensor

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.denoisers.base import Denoiser
from lorafusion.denoisers.cost import cost
from lorafusion.draws import Draws
from lorafusion.processes.edm import EDM
from lorafusion.samplers.heun import Heun

_SAMPLING = 2 << 40  # as the denoiser draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 32), ("batch", 8), ("steps", 3), ("full-steps", 18)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    print(abab.machine())
    denoiser, sampler, seeds = build(args.width), Heun(args.steps), torch.arange(args.batch)
    denoiser.sample(sampler, seeds[:1], batch_size=1)  # noise levels' tables are made once
    memory = copy.deepcopy(denoiser)
    memory.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    timings = abab.abab(
        {
            "plain loop": partial(plain, denoiser, args.steps, seeds),
            "denoiser.sample": lambda: denoiser.sample(sampler, seeds, batch_size=args.batch),
            "denoiser.sample, channels_last": lambda: memory.sample(sampler, seeds, batch_size=args.batch),
        },
        rtol=1e-3,
        atol=1e-3,
    )
    _, evaluations = cost(sampler, denoiser.process, None)
    _, full = cost(Heun(args.full_steps), denoiser.process, None)
    abab.show(f"{args.batch} images of 32 px, {args.width} channels, {evaluations} evaluations each", timings)
    for name, timing in timings.items():
        rate = args.batch * evaluations / timing.seconds
        print(f"{name}: {rate:.3g} evaluations/s, so {rate / full:.3g} images/s at {full} evaluations")


def build(width: int) -> Denoiser:
    torch.manual_seed(0)
    net, conditioning = DDPMpp(resolution=32, model_channels=width), Conditioning([Shift()], [UCLoRA()])
    denoiser = Denoiser(net, conditioning, EDM(), torch.optim.Adam, lambda images: 1.0)  # pyright: ignore[reportArgumentType]
    denoiser.eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # nothing is zero, as LoRA's B is at first
    return denoiser


@torch.no_grad()
def plain(denoiser: Denoiser, steps: int, seeds: Tensor) -> Tensor:
    """Algorithm 1 of Karras et al. 2022, written out."""
    levels = Heun(steps).levels
    x = levels[0] * Draws(denoiser.seed + _SAMPLING, seeds).normal(3, 32, 32, dtype=torch.float64)

    def slope(x: Tensor, t: Tensor) -> Tensor:
        def net(x: Tensor, noise: Tensor, *more: Tensor | None) -> Tensor:
            return denoiser.net(x.float(), noise.float(), *more).double()

        return (x - denoiser.process.denoise(net, x, t.expand(len(x))).x0) / t

    for t, s in pairwise(levels):
        d = slope(x, t)
        euler = x + (s - t) * d
        x = euler if s == 0 else x + (s - t) * (d + slope(euler, s)) / 2
    return x.float().clamp(-1, 1)


if __name__ == "__main__":
    main()

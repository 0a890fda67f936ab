"""What it costs to sample: evaluations of the network, counted rather than written down for each sampler."""

import torch
from torch import Tensor

from lorafusion.denoisers.guidance import Guidance
from lorafusion.draws import Draws
from lorafusion.processes import Prediction, Process
from lorafusion.samplers import Sampler


def cost(
    sampler: Sampler, process: Process, guidance: Guidance | None, device: torch.device | str = "cpu"
) -> tuple[int, int]:
    """Steps, and evaluations of the network for an image, counted on one that is a single pixel."""
    steps = evaluations = 0

    def denoise(x: Tensor, sigma: Tensor) -> Prediction:
        nonlocal evaluations
        evaluations += 1
        return Prediction(torch.zeros_like(x), torch.zeros_like(x))

    def progress(done: int, total: int) -> None:
        nonlocal steps
        steps = total

    guided = guidance.between(denoise, denoise) if guidance else denoise
    sampler(guided, process, Draws(0, torch.zeros(1, dtype=torch.long, device=device)), (1, 1, 1), device, progress)
    return steps, evaluations

"""Images drawn from a denoiser by all processes of a run, each its share; the same bits for any number of them."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from lorafusion.denoisers.base import Denoiser
from lorafusion.metrics.features import ranks, sum_over_ranks
from lorafusion.pictures import to_uint8
from lorafusion.progress import Report
from lorafusion.samplers import Sampler


def draw(
    denoiser: Denoiser,
    sampler: Sampler,
    seeds: Int[Tensor, "N"],
    labels: Int[Tensor, "N"] | None,
    micro_batch: int,
    report: Report,
    stopped: Callable[[], bool],
) -> UInt8[np.ndarray, "N C R R"] | None:
    """One image for each seed, on every process.

    micro_batch:  images that the network sees at once; process r of W takes the micro-batches r, r + W, ...
    report:       called with (images done, in all), as this process's share stands.
    stopped:      asked before each micro-batch. None is returned on all processes where it is true on one of them.
    """
    net, n, (rank, world_size) = denoiser.net, len(seeds), ranks()
    images = torch.zeros(n, net.channels, net.resolution, net.resolution, dtype=torch.uint8)
    mine = range(0, n, micro_batch)[rank::world_size]
    gave_up = torch.zeros(1, dtype=torch.int64)
    for k, start in enumerate(mine):
        if stopped():
            gave_up += 1
            break

        def progress(done: int, steps: int, k: int = k) -> None:
            report(n * (k * steps + done) // (len(mine) * steps), n)

        rows = slice(start, start + micro_batch)
        label = None if labels is None else denoiser.one_hot(labels[rows].to(denoiser.device))
        drawn = to_uint8(denoiser.sample(sampler, seeds[rows], label, micro_batch, progress))
        images[rows] = torch.from_numpy(drawn).permute(0, 3, 1, 2)
    sum_over_ranks(gave_up, denoiser.device)
    if gave_up:
        return None
    sum_over_ranks(images, denoiser.device)
    return images.numpy()

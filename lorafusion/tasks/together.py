"""Processes that torchrun started, connected: they decide as one, and wait for each other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from lorafusion.tasks import run_folder


@contextmanager
def processes(device: torch.device) -> Iterator[int]:
    """Connects those that torchrun started, where it did; yields this one's rank."""
    rank, world_size = run_folder.place()
    if world_size == 1 or dist.is_initialized():
        yield rank
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield rank
    finally:
        dist.destroy_process_group()


def connected() -> bool:
    return dist.is_available() and dist.is_initialized()


def meet() -> None:
    """Wait until all are here; nothing to do for processes that are not connected."""
    if connected():
        dist.barrier()

"""A program: one rank of two takes its sample of a batch and leaves the gradients in a file."""

import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from tests.dropin.networks import gradients, labels, own, steps, x

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
model, _ = own("non_reentrant", "all")
rows = slice(rank, rank + 1)
wrapped = DistributedDataParallel(model)
wrapped(x(rows), steps(rows), labels(rows)).square().mean().backward()
assert all(p.grad is not None for p in model.parameters())
torch.save(gradients(model), folder / f"{rank}.pt")
torch.distributed.destroy_process_group()

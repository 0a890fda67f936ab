"""The LoRA layers of a network, and what their mixtures omega are under conditions that it meets.

Nothing here knows a network or a strategy: the condition is the one that the network itself hands to its layers.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.denoisers.base import Denoiser, in_its_dtype
from lorafusion.errors import UserError
from lorafusion.lora import LoRALinear, LowRank
from lorafusion.progress import bar, counted
from lorafusion.samplers import state_dtype
from lorafusion.sites import Cond

_ROWS = 32  # conditions at once: the network's first layers see as many images


def layers_of(net: nn.Module) -> dict[str, LoRALinear]:
    """By their names in the network, in its order. Raises UserError where there is none."""
    found = {name: module for name, module in net.named_modules() if isinstance(module, LoRALinear)}
    if not found:
        raise UserError(
            "this run's network has no LoRA layers, so there is nothing to look at: its conditioning/attn adds none"
        )
    return found


def updates_of(net: nn.Module) -> dict[str, LowRank]:
    """By the name of their layer, and their own where the network has updates of several names. Raises UserError."""
    layers = layers_of(net)
    names = {update for layer in layers.values() for update in layer.updates}
    found: dict[str, LowRank] = {}
    for layer, module in layers.items():
        for name, update in module.updates.items():
            assert isinstance(update, LowRank)
            found[layer if len(names) == 1 else f"{layer} {name}"] = update
    return found


@torch.no_grad()
def omegas(
    denoiser: Denoiser, sigma: Float[Tensor, "N"], label: Float[Tensor, "N K"] | None
) -> dict[str, Float[np.ndarray, "N m"]]:
    """omega of every update under each condition, as the network computes it, in float64."""
    updates = updates_of(denoiser.net)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in updates}
    for cond in conditions(denoiser, sigma, label):
        for name, update in updates.items():
            parts[name].append(mixture(update, cond).double().cpu().numpy())
    return {name: np.concatenate(some) for name, some in parts.items()}


def mixture(update: LowRank, cond: Cond) -> Float[Tensor, "B m"]:
    """A row for every row of the condition, also of an omega that depends on none."""
    return update.mixture(cond).expand(len(cond.noise), -1)


def conditions(denoiser: Denoiser, sigma: Float[Tensor, "N"], label: Float[Tensor, "N K"] | None) -> Iterator[Cond]:
    """What the network's LoRA layers are told at these noise levels and labels, a few rows at a time.

    The process asks the network as it does in sampling, which stops at its first LoRA layer.
    """
    layers = layers_of(denoiser.net)
    net, device = in_its_dtype(denoiser.net), denoiser.device
    shape = (denoiser.net.channels, denoiser.net.resolution, denoiser.net.resolution)
    for rows in _counted(torch.arange(len(sigma)).split(_ROWS)):
        level = sigma[rows].to(device, state_dtype(device))
        x = torch.zeros(len(rows), *shape, device=device, dtype=level.dtype)
        some = None if label is None else label[rows].to(device)
        with _stopping(layers.values()) as reached, torch.no_grad():
            try:
                denoiser.process.denoise(net, x, level, some)
            except _Reached:
                yield reached[0]
                continue
        raise ValueError("the network's forward pass never reaches its LoRA layers")


def _counted(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    with bar("conditions", unit="parts") as report:
        yield from counted(parts, len(parts), report)


class _Reached(Exception):
    """A LoRA layer was called; its condition is known."""


@contextmanager
def _stopping(layers: Iterable[nn.Module]) -> Iterator[list[Cond]]:
    """The first of these layers that is called keeps its condition in the list, and raises _Reached."""
    reached: list[Cond] = []

    def stop(layer: nn.Module, given: tuple, named: dict) -> None:
        reached.extend(value for value in (*given, *named.values()) if isinstance(value, Cond))
        raise _Reached

    handles = [layer.register_forward_pre_hook(stop, with_kwargs=True) for layer in layers]
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()

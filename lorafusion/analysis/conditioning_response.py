"""How much each LoRA layer's effective weight is changed by its updates, and how it moves with the noise level and with
the class: whether the conditioning is used, and where.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from rich.table import Table

from lorafusion.analysis import Found
from lorafusion.analysis.axis import class_axis
from lorafusion.analysis.effective_weight import EffectiveWeight
from lorafusion.analysis.heat_maps import layer_maps
from lorafusion.analysis.labels import check_classes
from lorafusion.analysis.layers import conditions, layers_of
from lorafusion.analysis.levels import Levels, levels_of
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.samplers import Sampler

SAYS = {
    "response": "|U| / |W|: the update's size",
    "with_level": "movement with the noise level",
    "with_class": "movement with the class",
}


@dataclass(frozen=True)
class Measured:
    """Of L layers, C classes and N noise levels, each (L, C, N).

    response:    |U| / |W|, what the updates add against the layer's own weight.
    with_level:  |W + U - mean| / |mean|, the mean over the noise levels.
    with_class:  the same, the mean over the classes.
    """

    layers: list[str]
    response: Float[np.ndarray, "L C N"]
    with_level: Float[np.ndarray, "L C N"]
    with_class: Float[np.ndarray, "L C N"]


class ConditioningResponse:
    """points:   noise levels, at least 2.
    classes:  of a class-conditional run, at least one; null = the first 10.
    """

    name, looks_at = "conditioning_response", "layers"

    def __init__(self, points: int = 50, classes: Sequence[int] | None = None):
        self.points, self.classes = points, None if classes is None else [*classes]

    def __call__(self, denoiser: Denoiser, initial: Denoiser | None, sampler: Sampler) -> Found:
        """initial:  not looked at, a fresh update is zero. Raises UserError where the network has no LoRA layers."""
        levels, classes = levels_of(denoiser.process, sampler, self.points), self._classes(denoiser.net.num_classes)
        return _told(measure(denoiser, levels, classes), levels, classes)

    def _classes(self, num_classes: int | None) -> list[int] | None:
        if num_classes is None:
            if self.classes is not None:
                raise UserError(f"analysis.classes={self.classes} was given, but this run is unconditional")
            return None
        chosen = [*range(min(num_classes, 10))] if self.classes is None else self.classes
        if not chosen:
            raise UserError("analysis.classes=[]: name at least one class")
        check_classes(chosen, num_classes, f"analysis.classes={chosen}")
        return chosen


def measure(denoiser: Denoiser, levels: Levels, classes: Sequence[int] | None) -> Measured:
    label = None if classes is None else torch.eye(denoiser.net.num_classes or 0)[[*classes]]
    shape = (1 if label is None else len(label), len(levels.sigma))
    each = None if label is None else label.repeat_interleave(shape[1], dim=0)
    conds = [*conditions(denoiser, levels.sigma.repeat(shape[0]), each)]
    layers = layers_of(denoiser.net)
    weights = (EffectiveWeight(layer, conds, shape) for layer in layers.values())
    found = [(weight.response(), weight.movement(1), weight.movement(0)) for weight in weights]
    return Measured([*layers], *(torch.stack(of_all).numpy() for of_all in zip(*found, strict=True)))


def _told(found: Measured, levels: Levels, classes: list[int] | None) -> Found:
    arrays = {name: getattr(found, name) for name in SAYS}
    told = Found(arrays={"layers": np.array(found.layers), "levels": levels.axis.place, **arrays})
    told.tables["response"] = [
        {
            **({} if classes is None else {"class": classes[c]}),
            **{"layer": layer, "level": float(place)},
            **{name: float(values[i, c, n]) for name, values in arrays.items()},
        }
        for i, layer in enumerate(found.layers)
        for c in range(found.response.shape[1])
        for n, place in enumerate(levels.axis.place)
    ]
    axes = {"with_level": levels.axis} | ({} if classes is None else {"with_class": class_axis(classes)})
    for k, (name, axis) in enumerate(axes.items()):
        if not arrays[name].any():
            told.said.append(f"no {SAYS[name]}, of no layer: there is no picture of it")
            continue
        maps = {SAYS[key]: arrays[key].mean(1 + k) for key in ("response", name)}
        told.pictures[axis.name] = layer_maps(found.layers, maps, axis)
    if classes is not None:
        told.arrays["classes"] = np.array(classes)
    told.said.append(_table(found, [*axes]))
    told.numbers["layers"] = {
        layer: {name: float(arrays[name][i].mean()) for name in ("response", *axes)}
        for i, layer in enumerate(found.layers)
    }
    return told


def _table(found: Measured, moves: list[str]) -> Table:
    """Means over the conditions, and the smallest and the largest response."""
    table = Table("layer", "|U| / |W|", "least", "most", *(f"moves {name.replace('_', ' ')}" for name in moves))
    for column in table.columns:
        column.justify, column.no_wrap = "left" if column is table.columns[0] else "right", column is table.columns[0]
    for i, layer in enumerate(found.layers):
        of_layer = found.response[i]
        cells = (of_layer.mean(), of_layer.min(), of_layer.max(), *(getattr(found, name)[i].mean() for name in moves))
        table.add_row(layer, *(f"{value:.1%}" for value in cells))
    return table

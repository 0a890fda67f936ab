"""Cosine similarity of omega(c1) and omega(c2) for every LoRA layer, as training began and as it is: which conditions
share their update. Choi et al. 2024, Figures 4 and 7, over timesteps; here over sigma, and over classes, too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.table import Table

from lorafusion.analysis import Found
from lorafusion.analysis.axis import Axis, class_axis
from lorafusion.analysis.heat_maps import curves, squares
from lorafusion.analysis.labels import one_label
from lorafusion.analysis.layers import omegas
from lorafusion.analysis.levels import Levels, levels_of
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.samplers import Sampler

Maps = dict[str, Float[np.ndarray, "N N"]]  # by layer
Stages = dict[str, Denoiser]  # 'init' and 'trained', or the latter alone


class OmegaSimilarity:
    """points:  noise levels, at least 2; each map is points x points.
    label:   the class of a class-conditional run in maps over noise levels; null = the zero label.
    """

    name, looks_at = "omega_similarity", "layers"

    def __init__(self, points: int = 200, label: int | None = None):
        self.points, self.label = points, label

    def __call__(self, denoiser: Denoiser, initial: Denoiser | None, sampler: Sampler) -> Found:
        """initial:  the same denoiser as its training began; None = not known.

        Raises UserError where the network has no LoRA layers, or none whose omega depends on anything.
        """
        stages = {"trained": denoiser} if initial is None else {"init": initial, "trained": denoiser}
        levels, found = levels_of(denoiser.process, sampler, self.points), Found()
        if maps := self.over_levels(stages, levels):
            _tell(maps, levels.axis, denoiser.images_seen, found)
            _tell_distances(maps, levels, denoiser.images_seen, found)
        if denoiser.net.num_classes and (maps := self.over_classes(stages, levels)):
            _tell(maps, class_axis([*range(denoiser.net.num_classes)]), denoiser.images_seen, found)
            _tell_classes(maps, found)
        if not found.pictures:
            raise UserError("this run's omegas depend neither on the noise level nor on the class: nothing to compare")
        return found

    def over_levels(self, stages: Stages, levels: Levels) -> dict[str, Maps]:
        sigma = levels.sigma
        label = one_label(stages["trained"].net.num_classes, self.label, len(sigma))
        return similarities({stage: omegas(denoiser, sigma, label) for stage, denoiser in stages.items()})

    def over_classes(self, stages: Stages, levels: Levels) -> dict[str, Maps]:
        """At the middle noise level."""
        label = torch.eye(stages["trained"].net.num_classes or 0)
        sigma = levels.sigma[[len(levels.sigma) // 2]].expand(len(label))
        return similarities({stage: omegas(denoiser, sigma, label) for stage, denoiser in stages.items()})


def similarities(omega: Mapping[str, Mapping[str, Float[np.ndarray, "N m"]]]) -> dict[str, Maps]:
    """stage -> layer -> (N, N), of the layers whose omega varies at some stage; {} where none does."""
    varying = [
        layer
        for layer in next(iter(omega.values()))
        if any((rows := of_layer[layer]) is not None and bool((rows != rows[0]).any()) for of_layer in omega.values())
    ]
    if not varying:
        return {}
    return {stage: {layer: cosine(of_layer[layer]) for layer in varying} for stage, of_layer in omega.items()}


def cosine(omega: Float[np.ndarray, "N m"]) -> Float[np.ndarray, "N N"]:
    """<omega_i, omega_j> / (|omega_i| |omega_j|); NaN where one of them is zero."""
    norm = np.linalg.norm(omega, axis=1, keepdims=True)
    unit = np.divide(omega, norm, out=np.full_like(omega, np.nan), where=norm > 0)
    return (unit @ unit.T).clip(-1, 1)


def by_distance(similarity: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "N"]:
    """Mean similarity of conditions that stand k places apart, k = 0 .. N-1; NaN where none is known."""
    return np.array([_mean(np.diagonal(similarity, k)) for k in range(len(similarity))])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _tell(maps: dict[str, Maps], axis: Axis, images_seen: int, found: Found) -> None:
    """The maps as a picture and as arrays."""
    layers = [*maps["trained"]]
    for stage, of_layer in maps.items():
        found.arrays[f"{axis.name}_{stage}"] = np.stack([of_layer[layer] for layer in layers]).astype(np.float32)
    found.arrays |= {axis.name: axis.place, f"{axis.name}_layers": np.array(layers)}
    rows = {called(stage, images_seen): of_layer for stage, of_layer in maps.items()}
    found.pictures[axis.name] = squares(rows, axis, "cosine similarity of ω")


def called(stage: str, images_seen: int) -> str:
    return "at init" if stage == "init" else f"after {images_seen:,} images" if images_seen else "trained"


def _tell_distances(maps: dict[str, Maps], levels: Levels, images_seen: int, found: Found) -> None:
    """The mean similarity by distance: a curve a layer, a csv, and a short table of the mean over the layers."""
    place = levels.axis.place
    distance = np.array([(place[k:] - place[: len(place) - k]).mean() for k in range(len(place))])
    lines = {stage: {layer: by_distance(m) for layer, m in of_layer.items()} for stage, of_layer in maps.items()}
    found.tables["by_distance"] = [
        {"layer": layer, "distance": float(d), **{stage: float(lines[stage][layer][k]) for stage in lines}}
        for layer in maps["trained"]
        for k, d in enumerate(distance)
    ]
    named = {called(stage, images_seen): of_layer for stage, of_layer in lines.items()}
    found.pictures["by_distance"] = curves(distance, named, levels.distance, "mean cosine similarity of ω")
    means = {stage: np.nanmean([*of_layer.values()], axis=0) for stage, of_layer in lines.items()}
    table = Table(levels.distance, *named, title=f"mean similarity, {len(maps['trained'])} layers")
    shown = sorted({round(share * (len(distance) - 1)) for share in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)})
    for k in shown:
        table.add_row(f"{distance[k]:.4g}", *(f"{mean[k]:.3f}" for mean in means.values()))
    found.said.append(table)
    found.numbers["by_distance"] = {
        "distance": [float(distance[k]) for k in shown],
        **{stage: [float(mean[k]) for k in shown] for stage, mean in means.items()},
    }


def _tell_classes(maps: dict[str, Maps], found: Found) -> None:
    """The mean similarity of two different classes."""
    numbers: dict[str, Any] = {}
    for stage, of_layer in maps.items():
        apart = [m[~np.eye(len(m), dtype=bool)] for m in of_layer.values()]
        numbers[stage] = _mean(np.concatenate(apart))
    found.numbers["between_classes"] = numbers
    told = ", ".join(f"{stage} {value:.3f}" for stage, value in numbers.items())
    found.said.append(f"mean similarity of two classes, {len(maps['trained'])} layers: {told}")

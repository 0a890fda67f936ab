"""Rows of images along a line of labels, at equal seeds, drawn by one denoiser or several; what a classifier sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from rich.table import Table
from torch import Tensor

from lorafusion.analysis import Found
from lorafusion.analysis.row_pictures import confidence_curves, image_sheet
from lorafusion.denoisers.base import Denoiser
from lorafusion.errors import UserError
from lorafusion.metrics.features import Extractor, look
from lorafusion.pictures import to_uint8
from lorafusion.progress import Report
from lorafusion.samplers import Sampler


@dataclass(frozen=True)
class Row:
    """place:    (S,) values of a.
    label:    (S, K) the label vector at each.
    follows:  classes whose probability is told along the row.
    """

    title: str
    place: Float[np.ndarray, "S"]
    label: Float[Tensor, "S K"]
    follows: tuple[int, ...]


class Rows(Protocol):
    """An analysis whose rows are drawn."""

    name: str

    def rows(self, num_classes: int) -> list[Row]: ...


@dataclass(frozen=True)
class Subject:
    """A run that draws, and how."""

    denoiser: Denoiser
    sampler: Sampler


def check_alike(subjects: Mapping[str, Subject]) -> int:
    """The number of classes of all. Raises UserError where one has none, or they differ in that or in their images."""
    nets = {name: subject.denoiser.net for name, subject in subjects.items()}
    for name, net in nets.items():
        if net.num_classes is None:
            raise UserError(f"{name} is unconditional: this analysis needs runs that are told a class")
    shapes = {name: (net.num_classes, net.channels, net.resolution) for name, net in nets.items()}
    first, *others = shapes
    for name in others:
        if shapes[name] != shapes[first]:
            told = " and ".join(f"{n}: {k} classes, {c} x {r} x {r}" for n, (k, c, r) in shapes.items())
            raise UserError(f"ckpt: runs in one picture have equal classes and images; {told}")
    return shapes[first][0] or 0


def draw(
    subject: Subject, rows: Sequence[Row], seeds: Int[Tensor, "N"], micro_batch: int, report: Report | None = None
) -> UInt8[np.ndarray, "rows N S H W C"]:
    """An image for every label and seed: of one ``micro_batch`` the bits that task=sample draws for that label."""
    denoiser = subject.denoiser
    steps = len(rows[0].place)
    label = torch.cat([row.label.repeat(len(seeds), 1) for row in rows])  # seed by seed, each through its row
    each = seeds.repeat_interleave(steps).repeat(len(rows))

    def progress(done: int, total: int) -> None:
        if report:
            report(len(each) * done // total, len(each))

    dtype = next(denoiser.net.parameters()).dtype
    images = denoiser.sample(subject.sampler, each, label.to(dtype), micro_batch, progress)
    shape = (len(rows), len(seeds), steps)
    return to_uint8(images).reshape(*shape, *images.shape[2:], images.shape[1])


def probabilities(
    extractor: Extractor, images: UInt8[np.ndarray, "rows N S H W C"], num_classes: int, device: torch.device
) -> Float[np.ndarray, "rows N S K"]:
    """Of the classes, as the extractor sees them. Raises UserError where its classes are not those of the runs."""
    flat = np.moveaxis(images.reshape(-1, *images.shape[3:]), -1, 1)
    seen = look(extractor, np.ascontiguousarray(flat), {"logits"}, device)
    known = getattr(extractor, "num_classes", None)
    if known != num_classes or seen.logits is None:
        raise UserError(
            f"metric/extractor={extractor.name} tells {known or 'no'} classes apart, and the runs have {num_classes}"
        )
    return seen.logits.double().softmax(dim=1).numpy().reshape(*images.shape[:3], num_classes)


def tell(
    rows: Sequence[Row],
    seeds: Int[Tensor, "N"],
    images: Mapping[str, UInt8[np.ndarray, "rows N S H W C"]],
    seen: Mapping[str, Float[np.ndarray, "rows N S K"]],
    shown: int,
) -> Found:
    """seen:   probabilities; {} = there is no classifier.
    shown:  seeds of each row in the picture.
    """
    found = Found(
        pictures={"images": image_sheet(rows, {name: some[:, :shown] for name, some in images.items()})},
        arrays={
            "runs": np.array([*images]),
            "rows": np.array([row.title for row in rows]),
            "seeds": seeds.numpy(),
            "a": np.stack([row.place for row in rows]),
            "labels": np.stack([row.label.numpy() for row in rows]),
            "images": np.stack([*images.values()]),
        },
    )
    if seen:
        found.arrays["probabilities"] = np.stack([*seen.values()]).astype(np.float32)
        found.pictures["confidence"] = confidence_curves(rows, seen)
        found.tables["confidence"] = [*_lines(rows, seeds, seen)]
        found.numbers["probability"] = _means(rows, seen)
        found.said += [_table(row, found.numbers["probability"]) for row in rows]
    return found


def _lines(rows: Sequence[Row], seeds: Tensor, seen: Mapping[str, np.ndarray]) -> Any:
    """A line for every image and class that its row follows."""
    for run, p in seen.items():
        for r, row in enumerate(rows):
            for n, seed in enumerate(seeds.tolist()):
                for s, a in enumerate(row.place.tolist()):
                    known = {"run": run, "row": row.title, "seed": seed, "a": a, "top": int(p[r, n, s].argmax())}
                    for k in row.follows:
                        yield {**known, "class": k, "probability": float(p[r, n, s, k])}


def _means(rows: Sequence[Row], seen: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Over the seeds."""
    return [
        {"row": row.title, "run": run, "class": k, "mean": p[r, :, :, k].mean(axis=0).tolist()}
        for r, row in enumerate(rows)
        for run, p in seen.items()
        for k in row.follows
    ]


def _table(row: Row, means: list[dict[str, Any]]) -> Table:
    """Of one row: a line for each a, a column for each run and class."""
    of_row = [line for line in means if line["row"] == row.title]
    table = Table("a", title=f"{row.title}: mean probability", title_justify="left")
    for line in of_row:
        table.add_column(f"class {line['class']}, {line['run']}", justify="right", overflow="fold")
    for k, a in enumerate(row.place):
        table.add_row(f"{a:.3g}", *(f"{line['mean'][k]:.2f}" for line in of_row))
    return table

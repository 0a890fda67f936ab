"""Which images are drawn: seeds as a person writes them, and the class that each is asked for."""

import zlib
from itertools import pairwise

import torch
from jaxtyping import Int
from omegaconf import ListConfig
from torch import Tensor

from lorafusion.draws import Draws
from lorafusion.errors import UserError


def parse_seeds(seeds: str | int | ListConfig | list[str] | None, n: int) -> Int[Tensor, "N"]:
    """'0-63', a number, a list of these, or None = 0 .. n-1. Raises UserError on anything else."""
    if seeds is None:
        if n < 1:
            raise UserError(f"n={n}: at least one image")
        return torch.arange(n)
    parts = seeds if isinstance(seeds, ListConfig | list) else [seeds]
    values: list[Tensor] = []
    for part in parts:
        first, dash, last = str(part).partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise UserError(f"seeds={seeds}: {part!r} is neither a number nor a range like 0-63")
        values.append(torch.arange(int(first), max(int(first), int(last or first) + 1)))
    found = torch.cat(values) if values else torch.arange(0)
    if not len(found):
        raise UserError(f"seeds={seeds} names no seed; a range counts upwards, like 0-63")
    return found


def seed_sets(seeds: str | int | ListConfig | None, n: int, sets: int) -> list[Int[Tensor, "N"]]:
    """Sets of equally many seeds, none in two of them: the items of a list; or None = so many sets of n.

    Raises UserError on anything else.
    """
    if sets < 1 or (sets > 1 and seeds is not None):
        raise UserError(f"sets={sets} seeds={seeds}: either how many sets of n, or a list: seeds=[0-49,50-99] is two")
    if seeds is None:
        parts = [*parse_seeds(None, n * sets).split(n)] if n > 0 else [parse_seeds(None, n)]
    else:
        parts = [parse_seeds(part, 0) for part in (seeds if isinstance(seeds, ListConfig) else [seeds])]
    sizes = {len(part) for part in parts}
    if sizes == {1}:
        raise UserError(f"seeds={seeds} n={n}: a set of one image; a list has sets as its items: 0-63 is one of 64")
    if len(sizes) > 1:
        raise UserError(f"seeds={seeds}: sets of {', '.join(map(str, sorted(sizes)))} images; they are of one size")
    if len(torch.cat(parts).unique()) < sum(map(len, parts)):
        raise UserError(f"seeds={seeds}: a seed comes twice; sets differ in all their seeds")
    return parts


def written(seeds: Int[Tensor, "N"]) -> list[str]:
    """What ``parse_seeds`` reads as these: ['0-63', '70']."""
    breaks = (seeds.diff() != 1).nonzero().flatten() + 1
    edges = [0, *breaks.tolist(), len(seeds)]
    runs = [(int(seeds[a]), int(seeds[b - 1])) for a, b in pairwise(edges)]
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]


def choose_labels(
    label: str | int | ListConfig | None, seeds: Int[Tensor, "N"], num_classes: int | None
) -> Int[Tensor, "N"] | None:
    """(N,) classes: one for all, a list of N, 'balanced' = seed modulo K, or None = drawn from each seed."""
    if num_classes is None:
        if label is not None:
            raise UserError("label= was given, but this run is unconditional")
        return None
    if label is None:
        return Draws(zlib.crc32(b"label"), seeds).integers(num_classes)
    if label == "balanced":
        return seeds % num_classes
    chosen = [label] if isinstance(label, int | str) else list(label)
    if not all(str(c).isdecimal() and int(c) < num_classes for c in chosen):
        raise UserError(f"label={label}: classes are 0 .. {num_classes - 1}, one, a list of them, or balanced")
    if len(chosen) not in (1, len(seeds)):
        raise UserError(f"label= has {len(chosen)} classes for {len(seeds)} images; give one, or one an image")
    return torch.tensor([int(c) for c in chosen]).expand(len(seeds)).clone()

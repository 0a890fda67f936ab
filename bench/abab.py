"""How every bench here measures: one thread, CPU time, variants interleaved, median of the paired ratios.

Wall clock on a shared machine is useless (the same step took 3.5 to 20 s). Neighbours still change the speed of a core
from second to second, so each round times every variant once, and only ratios within a round are compared; every
second round runs in reverse order, so that no variant always goes first.

Import this before numpy and torch: libraries read the number of threads when they load.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import lorafusion  # noqa: F401  first of all that may import torchvision: it cures one that does not fit torch

ROUNDS = 7
MEASURE = 0.1  # seconds that one measurement lasts at least: fast variants are called many times

Variant = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """seconds:  median CPU time of one call.
    ratio:    median over the rounds of (this variant / the baseline in the same round).
    low, high:  the smallest and the largest of these ratios.
    """

    seconds: float
    ratio: float
    low: float
    high: float


def abab(
    variants: Mapping[str, Variant],
    *,
    rounds: int = ROUNDS,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    check: Callable[[Any, Any], None] | None = None,
) -> dict[str, Timing]:
    """Time ``variants``, the first of which is the baseline, after comparing what they return.

    rounds:      at least 7.
    rtol, atol:  how far the outputs (numbers, arrays, tensors, containers of these) may lie from the baseline's.
    check:       ``check(output, expected)`` instead, which raises where they differ: for outputs of another kind.

    Raises AssertionError where outputs differ, ValueError for too few variants or rounds.
    """
    if len(variants) < 2 or rounds < ROUNDS:
        raise ValueError(f"at least 2 variants and {ROUNDS} rounds; got {len(variants)} and {rounds}")
    torch.set_num_threads(1)
    names = list(variants)
    _check_equal(variants, check or (lambda out, expected: _close(out, expected, rtol, atol)))
    calls = {name: _calls(variants[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names if k % 2 == 0 else reversed(names):
            seconds[name].append(_time(variants[name], calls[name]))
    return {name: _summary(seconds[name], seconds[names[0]]) for name in names}


def _check_equal(variants: Mapping[str, Variant], check: Callable[[Any, Any], None]) -> None:
    first, *others = variants
    expected = variants[first]()
    for name in others:
        try:
            check(variants[name](), expected)
        except AssertionError as error:
            raise AssertionError(f"{name} does not return what {first} returns: {error}") from error


def _close(output: Any, expected: Any, rtol: float, atol: float) -> None:
    outputs, expecteds = list(_arrays(output)), list(_arrays(expected))
    assert len(outputs) == len(expecteds), f"{len(outputs)} arrays, not {len(expecteds)}"
    for a, b in zip(outputs, expecteds, strict=True):
        assert a.shape == b.shape, f"shape {a.shape}, not {b.shape}"
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def _arrays(output: Any) -> Iterator[np.ndarray]:
    if output is None:
        return
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        for part in output:
            yield from _arrays(part)
    else:
        yield output.detach().double().numpy() if isinstance(output, torch.Tensor) else np.asarray(output)


def _calls(variant: Variant) -> int:
    """How many calls fill MEASURE; by the way it warms up."""
    once = min(_time(variant, 1) for _ in range(2))
    return max(1, round(MEASURE / max(once, 1e-7)))


def _time(variant: Variant, calls: int) -> float:
    begin = time.process_time()
    for _ in range(calls):
        variant()
    return (time.process_time() - begin) / calls


def _summary(seconds: list[float], baseline: list[float]) -> Timing:
    ratios = [own / base for own, base in zip(seconds, baseline, strict=True)]
    return Timing(median(seconds), median(ratios), min(ratios), max(ratios))


def show(title: str, timings: Mapping[str, Timing]) -> None:
    """Print a table; ratios are to the first row."""
    table = Table(title=title, title_justify="left")
    for column in ("variant", "ms a call", "ratio", "of all rounds"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, t in timings.items():
        table.add_row(name, f"{1000 * t.seconds:.3f}", f"{t.ratio:.3f}", f"{t.low:.3f} .. {t.high:.3f}")
    Console().print(table)


def machine() -> str:
    """One line for the record."""
    cpu = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {cpu}, one thread, python {platform.python_version()}, torch {torch.__version__}"

"""The timing method of the benches."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

SPEC = importlib.util.spec_from_file_location("abab", Path(__file__).parents[2] / "bench" / "abab.py")
assert SPEC is not None
assert SPEC.loader is not None
abab = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(abab)


def test_ratios_are_paired_within_rounds(monkeypatch):
    """A machine that slows down tenfold halfway changes no ratio."""
    speed = iter([1] * 6 + [10] * 8)
    monkeypatch.setattr(abab, "_calls", lambda variant: 1)
    monkeypatch.setattr(abab, "_time", lambda variant, calls: variant() * next(speed))
    found = abab.abab({"one": lambda: 1.0, "three": lambda: 3.0}, check=lambda output, expected: None)
    assert found["one"].ratio == 1
    assert (found["three"].low, found["three"].ratio, found["three"].high) == (3, 3, 3)
    assert found["three"].seconds == 30


def test_order_is_reversed_every_second_round(monkeypatch):
    order = []

    def measure(variant, calls):
        order.append(variant())
        return 1.0

    monkeypatch.setattr(abab, "_calls", lambda variant: 1)
    monkeypatch.setattr(abab, "_time", measure)
    abab.abab({"a": lambda: "a", "b": lambda: "b"}, check=lambda output, expected: None, rounds=8)
    assert "".join(order) == "abba" * 4


def test_fast_variants_are_called_many_times_and_timed_by_the_call(monkeypatch):
    clock, calls = [0.0], {0.001: 0, 0.004: 0}

    def work(seconds: float) -> None:
        clock[0] += seconds
        calls[seconds] += 1

    monkeypatch.setattr(abab.time, "process_time", lambda: clock[0])
    found = abab.abab({"fast": lambda: work(0.001), "slow": lambda: work(0.004)})
    assert found["fast"].seconds == pytest.approx(0.001)
    assert found["slow"].ratio == pytest.approx(4)
    assert calls == {0.001: 3 + 7 * 100, 0.004: 3 + 7 * 25}  # three: compared once, calibrated twice


@pytest.mark.parametrize("wrong", [1.001, np.nan, (1.0, 1.0), torch.ones(2)])
def test_outputs_are_compared_first(wrong):
    with pytest.raises(AssertionError, match="wrong does not return what right returns"):
        abab.abab({"right": lambda: 1.0, "wrong": lambda: wrong})


def test_containers_are_compared_part_by_part():
    nested = {"x": [torch.ones(2), (np.zeros(3), None)], "y": 1}
    abab._check_equal({"a": lambda: nested, "b": lambda: dict(nested)}, lambda a, b: abab._close(a, b, 0, 0))
    other = {"x": [torch.ones(2), (np.full(3, 0.1), None)], "y": 1}
    with pytest.raises(AssertionError):
        abab._check_equal({"a": lambda: nested, "b": lambda: other}, lambda a, b: abab._close(a, b, 0, 0))


def test_too_few():
    with pytest.raises(ValueError, match="7 rounds"):
        abab.abab({"a": lambda: 1, "b": lambda: 1}, rounds=3)
    with pytest.raises(ValueError, match="2 variants"):
        abab.abab({"a": lambda: 1})

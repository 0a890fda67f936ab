"""How numbers are written."""

import math

import pytest

from lorafusion.report.numbers import decimals, duration, fixed, short, whole


@pytest.mark.parametrize(
    ("values", "places"), [([0.03], 5), ([1.97, 2.4], 3), ([437.5], 1), ([54321.0], 0), ([0.0], 0), ([math.nan], 0)]
)
def test_four_digits(values, places):
    assert decimals(values) == places


def test_fixed():
    written = [fixed(v, 3) for v in (1234.5, -0.5, None, math.nan, -math.inf, 1e-7, 0.0)]
    assert written == ["1,234.500", "−0.500", "–", "nan", "−inf", "1e−07", "0.000"]  # noqa: RUF001
    assert [fixed(v, 2, sign=True) for v in (0.126, -3.0)] == ["+0.13", "−3.00"]  # noqa: RUF001


def test_counts():
    assert [whole(v) for v in (437_532, -12, None)] == ["437,532", "−12", "–"]  # noqa: RUF001
    assert [short(v) for v in (21_960_000, 1_000, 999_700, 412, None)] == ["22.0 M", "1.00 k", "1.00 M", "412", "–"]  # noqa: RUF001


def test_times():
    times = [duration(v) for v in (0.04, 59.96, 245, 3 * 3600 + 61, 100_000, None)]
    assert times == ["0.0 s", "1 min 00 s", "4 min 05 s", "3 h 01 min", "1 d 03 h", "–"]  # noqa: RUF001

"""Curves: means over seeds by hand, stretches, what is cut off, axes."""

import pytest

from lorafusion.report.curves import binned, curves, means
from lorafusion.report.groups import Mean, grouped
from lorafusion.report.run import load
from lorafusion.report.svg import Axis, axis, element, linear_ticks, log_ticks, tick_text
from tests.report import made_up


def test_means_where_some_have_a_value():
    found = means([[(1.0, 2.0), (2.0, 4.0)], [(1.0, 4.0), (2.0, float("nan"))], [(3.0, 5.0)]])
    assert found == [(1.0, Mean(3.0, pytest.approx(2**0.5), 2)), (3.0, Mean(5.0, None, 1))]


def test_stretches():
    points = [(1.0, 1.0), (2.0, 3.0), (5.0, 7.0), (10.0, 9.0)]
    assert binned(points, 10.0, bins=2) == [(2.5, 2.0), (7.5, 8.0)]


def test_pictures_of_a_sweep(tmp_path):
    groups = grouped([load(folder, folder.name) for folder in made_up.sweep(tmp_path)])
    loss = {picture.title: picture for picture in curves(groups)}
    both = ("validation loss", "training loss")
    assert [*loss] == [title for name in both for title in (name, f"{name}, second half")]
    for picture in loss.values():
        assert picture.svg.count('<g clip-path="url(#clip-') == 8
        assert picture.svg.count('class="cross') == 2  # of the failed run and the killed one
    assert loss["training loss"].note
    assert "band" in loss["validation loss"].svg


def test_curves_that_end_far_apart_need_no_close_up(tmp_path):
    for attn, level in (("none", 1.0), ("uc_lora", 2.0)):
        made_up.run(
            tmp_path / attn, attn=attn, rows=[{"step": k, "nimg": k * 10.0, "val_loss": level} for k in range(9)]
        )
    groups = grouped([load(tmp_path / attn, attn) for attn in ("none", "uc_lora")])
    assert [picture.title for picture in curves(groups)] == ["validation loss"]


def test_a_loss_that_is_never_finite_is_no_picture(tmp_path):
    rows = [{"step": k, "nimg": float(k), "val_loss": float("nan")} for k in range(3)]
    assert curves(grouped([load(made_up.run(tmp_path / "r", rows=rows), "r")])) == []


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 0.0, 0.0),
        (-1.0, 2.0, 5.0),
        (1e-9, 1e9, 1.0),
        (5.0, 5.0, 5.0),
        (1e300,) * 3,
        (1e308, -1e308, 0.0),
        (1e-300, 1e308, 1.0),
        (5e-324,) * 3,
    ],
)
def test_any_values_are_drawn(tmp_path, values):
    rows = [{"step": k, "nimg": 1000.0 * k, "val_loss": v} for k, v in enumerate(values)]
    (picture,) = curves(grouped([load(made_up.run(tmp_path / "r", rows=rows), "r")]))
    assert "nan" not in picture.svg
    assert "inf" not in picture.svg


def test_axes():
    linear, log = Axis(0, 10, 100, 200), Axis(1, 100, 200, 0, log=True)
    assert (linear(2.5), log(10)) == (125, 100)
    assert axis([1, 4], 0, 1).log is False
    assert axis([1, 6], 0, 1).log is True
    assert axis([-1, 60], 0, 1).log is False


def test_ticks_are_round():
    assert linear_ticks(0, 100_000, 5) == [0, 20_000, 40_000, 60_000, 80_000, 100_000]
    assert log_ticks(0.9, 21) == [1, 2, 5, 10, 20]
    assert log_ticks(0.021, 0.039) == pytest.approx([0.025, 0.03, 0.035])
    assert [tick_text(v) for v in (0, 20_000, 2_500_000, 0.05, -3)] == ["0", "20 k", "2.5 M", "0.05", "−3"]  # noqa: RUF001


def test_markup_in_a_name_stays_text():
    assert element("text", "<script>", x=1.0, class_='"') == '<text x="1" class="&#34;">&lt;script&gt;</text>'

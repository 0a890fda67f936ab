"""Repeats over seeds, means and spreads by hand, what is marked best, what is compared with the paper."""

import math

import pytest

from lorafusion.report.columns import columns
from lorafusion.report.groups import grouped, mean
from lorafusion.report.rivals import rivals
from lorafusion.report.run import load
from lorafusion.report.table import table
from tests.report import made_up


def groups_of(tmp_path, *runs):
    return grouped([load(made_up.run(tmp_path / str(k), **run), str(k)) for k, run in enumerate(runs)])


def valued(value, seed=0, images=100_000, **more):
    return {"rows": [{"step": 1, "nimg": float(images), "val_loss": value}], "seed": seed, **more}


def cells(groups, key):
    made = table(groups)
    k = [column.key for column in made.columns].index(key)
    return [row.cells[k] for row in made.rows]


def test_mean_and_standard_deviation():
    found = mean([0.1, 0.2, 0.6, None])
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(0.3), 3)
    assert found.spread == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert mean([0.1]) == mean([0.1, None])
    assert mean([None]) is None


def test_runs_that_differ_in_the_seed_alone_are_repeats(tmp_path):
    groups = groups_of(
        tmp_path, valued(0.1, seed=1), valued(0.5, attn="none"), valued(0.3, seed=0), valued(0.2, denoiser__lr=1)
    )
    assert [[run.name for run in group.runs] for group in groups] == [["1"], ["2", "0"], ["3"]]
    cell = cells(groups, "val_loss")[1]
    assert (cell.text, cell.spread, cell.sort) == ("0.2000", "0.1414", pytest.approx(0.2))  # sqrt(2) / 10
    assert cells(groups, "seed")[1].text == "0, 1"


def test_only_what_has_gone_as_far_is_averaged(tmp_path):
    groups = groups_of(tmp_path, valued(0.1, seed=0), valued(9.0, seed=1, images=40_000))
    (cell,) = cells(groups, "val_loss")
    assert (cell.sort, cell.spread, cell.n) == (0.1, "", 1)


def test_best_by_its_direction_and_never_nan(tmp_path):
    def judged(value, loss, attn):
        files = {"metrics.json": {"digits": {"recognised": value, "n": 9}}}
        return valued(loss, attn=attn, metrics=files)

    groups = groups_of(tmp_path, judged(0.5, 0.2, "none"), judged(0.7, 0.3, "ada_ln"), judged(0.1, math.nan, "uc_lora"))
    assert [cell.best for cell in cells(groups, "recognised")] == [False, True, False]
    assert [cell.best for cell in cells(groups, "val_loss")] == [True, False, False]
    assert cells(groups, "val_loss")[2].sort is None


def test_losses_of_other_data_or_processes_are_not_rivals(tmp_path):
    edm = {"process___target_": "lorafusion.processes.edm.EDM"}
    groups = groups_of(
        tmp_path,
        valued(0.3, attn="none"),
        valued(0.2),
        valued(0.1, **edm),
        valued(0.1, data__name="cifar10"),
        valued(0.4, attn="none", data__name="cifar10"),
    )
    best = {(g.first.data, g.label): c.best for g, c in zip(groups, cells(groups, "val_loss"), strict=True)}
    assert sum(best.values()) == 2  # one of mnist under DDPM, one of cifar10; EDM's has no rival


def test_values_on_other_numbers_of_images_are_not_rivals(tmp_path):
    def judged(fid, n, attn, lr):
        return {"metrics": {"metrics.json": {"fid": {"fid": fid, "n": n}}}, "attn": attn, "denoiser__optimizer__lr": lr}

    groups = groups_of(
        tmp_path, judged(9.0, 5_000, "none", 1), judged(8.0, 5_000, "none", 2), judged(3.0, 50_000, "none", 3)
    )
    assert [(c.text, c.best) for c in cells(groups, "fid")] == [("9.000", False), ("8.000", True), ("3.000", False)]
    made = table(groups)
    (fid,) = [column for column in made.columns if column.key == "fid"]
    assert made.judged(fid) == "N differs"
    assert [*rivals(fid, groups)] == ["N = 5,000", "N = 50,000"]
    assert table(groups[:2]).judged(fid) == "N = 5,000"


def test_columns_that_say_nothing_are_left_out(tmp_path):
    made = table(groups_of(tmp_path, valued(0.1), valued(0.2, attn="none")))
    keys = [column.key for column in made.columns]
    assert keys == ["conv", "attn", "seed", "state", "val_loss", "images_seen"]
    assert dict(made.same) == {"run": "mnist_5k-nano", "data": "mnist_5k, 32 px", "process": "DDPM"}


def test_a_setting_that_differs_is_a_column(tmp_path):
    groups = groups_of(tmp_path, valued(0.1, denoiser__optimizer__lr=0.002), valued(0.2))
    key = "denoiser.optimizer.lr"
    assert [cell.text for cell in cells(groups, key)] == ["0.002", "0.001"]
    assert [group.label for group in groups] == ["shift + uc_lora, lr 0.002", "shift + uc_lora, lr 0.001"]


@pytest.mark.parametrize(("n", "difference"), [(50_000, "+0.14"), (5_000, "–"), (None, "–")])  # noqa: RUF001
def test_fid_is_compared_with_the_paper_at_its_n_alone(tmp_path, n, difference):
    files = {"metrics.json": {"fid": {"fid": 2.1, "n": n}, "frechet_distance_digits": {"frechet_distance_digits": 1.0}}}
    (group,) = groups_of(
        tmp_path, {"metrics": files, "paper__fid": 1.96, "paper__parameters": 100, "model": {"parameters": 90}}
    )
    assert cells([group], "fid_difference" if n == 50_000 else "paper.fid")[0].text == (
        difference if n == 50_000 else "1.96"
    )
    assert (cells([group], "parameters_difference")[0].text) == "−10"  # noqa: RUF001
    assert ("fid_difference" in [c.key for c in table([group]).columns]) == (n == 50_000)


@pytest.mark.parametrize(("nfe", "compared"), [(35, True), (None, True), (18, False)])
def test_fid_is_compared_with_the_paper_at_its_evaluations_alone(tmp_path, nfe, compared):
    files = {"metrics.json": {"fid": {"fid": 2.1, "n": 50_000, "nfe": nfe}}}
    (group,) = groups_of(tmp_path, {"metrics": files, "paper__fid": 1.96, "paper__nfe": 35})
    keys = [column.key for column in table([group]).columns]
    assert ("fid_difference" in keys) == compared
    assert ("nfe" in keys) == (nfe is not None)


def test_a_logged_fid_is_not_compared_with_the_paper(tmp_path):
    rows = [{"step": 1, "nimg": 1.0, "fid": 2.0}]
    (group,) = groups_of(tmp_path, {"rows": rows, "paper__fid": 1.96})
    assert cells([group], "fid")[0].text == "2.000"
    assert "fid_difference" not in [c.key for c in table([group]).columns]


def test_one_name_of_two_metrics_is_told_apart(tmp_path):
    files = {"metrics.json": {"digits": {"agreement": 0.5}, "classes": {"agreement": 0.25}, "fid": {"fid": 3.0}}}
    found = [c.key for c in columns(groups_of(tmp_path, {"metrics": files})) if c.metric]
    assert found == ["digits.agreement", "classes.agreement", "fid"]


def test_costs_and_deviations_are_not_how_good_it_is(tmp_path):
    rows = [{"step": 1, "nimg": 1.0, "lr": 0.1, "kid": 0.5, "kid_std": 0.1, "images_per_s": 70.0, "memory_mib": 900.0}]
    groups = groups_of(tmp_path, {"rows": rows})
    assert [c.key for c in columns(groups) if c.metric] == ["kid"]
    assert [cells(groups, key)[0].text for key in ("images_per_s", "memory_mib")] == ["70", "900"]


def test_a_file_says_more_than_the_log(tmp_path):
    files = {"metrics/000000000001/metrics.json": {"fid": {"fid": 3.0, "n": 50_000}}}
    groups = groups_of(tmp_path, {"rows": [{"step": 1, "nimg": 1.0, "fid": 4.0}], "metrics": files})
    assert cells(groups, "fid")[0].text == "3.000"


def test_without_configs_every_run_stands_alone(tmp_path):
    for k in (0, 1):
        made_up.write_csv(tmp_path / str(k) / "metrics.csv", [{"step": 1, "nimg": 9.0, "val_loss": 0.5}])
    groups = grouped([load(tmp_path / str(k), str(k)) for k in (0, 1)])
    assert [group.label for group in groups] == ["0", "1"]
    assert [cell.text for cell in cells(groups, "val_loss")] == ["0.5000", "0.5000"]


def test_colour_by_attention_and_dash_by_conv(tmp_path):
    groups = grouped([load(folder, folder.name) for folder in made_up.sweep(tmp_path)])
    looks = {group.label: (group.colour, group.dash) for group in groups}
    assert len({*looks.values()}) == 8
    assert looks["no conditioning"] == (0, 1)
    assert looks["shift"] == (0, 0)
    assert looks["uc_lora"][0] == looks["shift + uc_lora"][0]

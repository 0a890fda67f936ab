"""One run from its folder, whole or half there."""

import pytest

from lorafusion.report.run import load
from tests.report import made_up


def test_everything(tmp_path):
    folder = made_up.run(
        tmp_path / "run",
        rows=[
            {"step": 1, "nimg": 128.0, "loss": 0.5, "images_per_s": 100.0},
            {"step": 2, "nimg": 256.0, "loss": 0.4, "images_per_s": 300.0},
            {"step": 2, "nimg": 256.0, "val_loss": 0.45},
        ],
        status={"state": "stopped", "seconds": 2.0, "images_seen": 300, "images": 100_000},
        model={"parameters": 437_532, "macs_per_image": 21_400_000},
        grids=(128, 256),
        seed=3,
        paper__fid=1.96,
    )
    (folder / "overrides.txt").write_text("seed=3\n\nimages=100_000\n")
    run = load(folder, "it")
    assert (run.name, run.title, run.seed, run.data) == ("it", "mnist_5k-nano", 3, "mnist_5k, 32 px")
    assert (run.conditioning("conv"), run.conditioning("attn"), run.process) == ("shift", "uc_lora", "DDPM")
    assert (run.parameters, run.macs, run.images_seen, run.images) == (437_532, 21_400_000, 300, 100_000)
    assert (run.state.name, run.images_per_s, run.published("fid")) == ("stopped", 200.0, 1.96)
    assert run.overrides == ["seed=3", "images=100_000"]
    assert [*run.grids] == [128, 256]
    assert run.problems == []


def test_a_csv_alone(tmp_path):
    made_up.write_csv(tmp_path / "metrics.csv", [{"step": 1, "nimg": 128.0, "val_loss": 0.5}])
    run = load(tmp_path, "it")
    assert (run.images_seen, run.state.name, run.conditioning("attn"), run.data) == (128, "unfinished", "?", "?")
    assert (run.seed, run.parameters, run.images_per_s, run.title) == (None, None, None, tmp_path.name)
    assert run.problems == ["config.yaml is missing"]


def test_speed_of_the_whole_run_where_none_was_logged(tmp_path):
    status = {"state": "finished", "seconds": 4.0, "images_seen": 200}
    assert load(made_up.run(tmp_path / "r", status=status), "it").images_per_s == 50.0


@pytest.mark.parametrize("content", ["", "a: [", "\0", "3", "a: &x 1\nb: *x"])
@pytest.mark.parametrize("name", ["config.yaml", "status.json", "model.json", "versions.json", "metrics.json"])
def test_damage_is_named_and_the_rest_is_read(tmp_path, name, content):
    folder = made_up.run(tmp_path / "r", rows=[{"step": 1, "nimg": 128.0, "val_loss": 0.5}])
    (folder / name).write_text(content)
    run = load(folder, "it")
    assert [said.split()[0] for said in run.problems] == [name]
    assert run.history == {"val_loss": [(128.0, 0.5)]}


def test_odd_values_are_not_numbers(tmp_path):
    folder = made_up.run(
        tmp_path / "r",
        status={"state": 3, "images_seen": "many", "seconds": [1]},
        model={"parameters": "0.4 M", "macs_per_image": float("inf")},
        data="gone",
        conditioning=["uc_lora"],
        paper=None,
        seed="zero",
        name=[3],
    )
    run = load(folder, "it")
    assert (run.parameters, run.macs, run.images_seen, run.seed, run.published("fid")) == (None, None, 0, None, None)
    assert (run.data, run.conditioning("conv"), run.state.name, run.title) == ("?", "?", "unfinished", "[3]")

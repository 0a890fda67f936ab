"""task=report as it is called."""

import subprocess
import sys
from pathlib import Path

import pytest

from lorafusion.report.run import load
from lorafusion.report.settings import at
from tests.report import made_up
from tests.tasks.runs import finish, tiny

ROOT = Path(__file__).parents[2]
RUN = """
import runpy, sys
sys.argv = ["run.py", *sys.argv[1:]]
runpy.run_path("run.py", run_name="__main__")
assert not {"torch", "lightning", "matplotlib", "wandb"} & {*sys.modules}
"""


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, attn in ((0, "none"), (1, "none"), (0, "uc_lora")):
        made_up.run(
            folder / f"{attn}{seed}", rows=made_up.curve(0.03 - 0.01 * (attn != "none"), seed), seed=seed, attn=attn
        )
    return folder


def test_the_folder_is_printed_last_and_torch_is_not_imported(runs, tmp_path):
    done = call(
        "task=report", f"runs=[{runs}/none*,{runs}/uc_lora0]", f"out={tmp_path}/report", f"paths.run_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{tmp_path}/report"
    assert any(line.startswith("best validation loss: shift + uc_lora, 0.0") for line in lines)
    assert {f.name for f in (tmp_path / "report").iterdir()} == {"report.html", "report.md", "report.csv"}


def test_no_runs_is_one_line(tmp_path):
    done = call("task=report", f"runs={tmp_path}", f"out={tmp_path}/report", f"paths.run_dir={tmp_path}/looking")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: runs={tmp_path}: no run in there")
    assert not (tmp_path / "report").exists()


def test_what_a_run_leaves_is_read(tmp_path):
    """All of it: the report's idea of a run's folder is that of the tasks."""
    folder = tmp_path / "run"
    grid = ("callbacks.sample_grid.every_images=64", "callbacks.sample_grid.n=4", "process.num_steps=4")
    callbacks = ("ema", "checkpoint", "sample_grid")
    assert finish(tiny(folder, "images=160", "seed=5", *grid, callbacks=callbacks)) == 0
    run = load(folder, "it")
    assert run.problems == []
    assert (run.state.name, run.state.error, run.images_seen, run.images, run.seed) == ("finished", None, 160, 160, 5)
    assert (run.conditioning("conv"), run.conditioning("attn"), run.data) == ("shift", "uc_lora", "synthetic, 8 px")
    assert {"loss", "val_loss"} <= {*run.history}
    assert len(run.history["loss"]) == 10
    assert [*run.grids] == [64, 128, 160]
    assert run.parameters
    assert run.macs
    assert run.images_per_s
    assert {"python", "torch", "git"} <= {*run.versions}
    assert "seed=5" in run.overrides
    assert str(tmp_path) not in repr(run.essence)
    assert at(run.essence, "data.seed") is None

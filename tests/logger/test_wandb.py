"""Weights & Biases, offline: what its own inspector reads back of a multirun of three jobs, of which one fails."""

import json
import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import pytest

from lorafusion.tasks.dashboard import as_json
from lorafusion.tasks.dashboard_panels import workspace
from tests.logger.wandb_files import read_runs
from tests.tasks.runs import CONF, losses, tiny

HUGE = 10**13
OFFLINE = ("logger=[csv,wandb]", "logger.wandb.mode=offline")


def command_line(arguments: tuple[str, ...], home: Path) -> None:
    """The body of a process that runs run.py; the home directory is ``home``."""
    import torch

    torch.set_num_threads(1)
    os.environ["HOME"] = str(home)
    sys.argv = ["run.py", *arguments]
    before = {n: v for n, v in os.environ.items() if n.startswith("WANDB_")}
    try:
        runpy.run_path(str(CONF.parent / "run.py"), run_name="__main__")
    finally:
        left = {n: v for n, v in os.environ.items() if n.startswith("WANDB_") and n != "WANDB_SERVICE"}
        (home / "environment.json").write_text(json.dumps(left == before))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a multirun over rank=4,HUGE,2; its second job fails: there is no memory for such weights."""
    root = tmp_path_factory.mktemp("wandb")
    (root / "home").mkdir()
    folder = root / "sweeps" / "rank"
    everything = (
        "images=64",
        "sampler=ddim",
        "sampler.steps=2",
        "callbacks.sample_grid.every_images=32",
        "callbacks.sample_grid.n=4",
        "validate_every_images=32",
        "tags=[a-tag]",
        "logger.wandb.checkpoints=true",
        "logger.wandb.samples=true",
        "callbacks.throughput.every_steps=2",
    )
    overrides = tiny(folder, *OFFLINE, *everything, callbacks=("ema", "checkpoint", "throughput", "sample_grid"))
    overrides = tuple(o for o in overrides if not o.startswith("paths.run_dir"))
    arguments = ("-m", *overrides, f"conditioning.attn.uc_lora.rank=4,{HUGE},2", f"hydra.sweep.dir={folder}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    process = context.Process(target=command_line, args=(arguments, root / "home"))
    process.start()
    process.join(120)
    assert process.exitcode == 1  # one of three failed
    return folder


@pytest.fixture(scope="module")
def runs(sweep):
    """What W&B has of each job."""
    found = [read_runs(sweep / str(job)) for job in range(3)]
    assert [len(one) for one in found] == [1, 1, 1]  # a run for each job, not one for all
    return [one for (one,) in found]


def test_three_runs_of_one_group_with_names_of_their_own(runs, sweep):
    assert [r.run["display_name"] for r in runs] == [
        f"synthetic-nano-ddpm-shift-uc_lora-r{rank}-s0" for rank in (4, HUGE, 2)
    ]
    assert {r.run["run_group"] for r in runs} == {"sweeps/rank"}
    assert {r.run["job_type"] for r in runs} == {"train"}
    assert {tuple(r.run["tags"]) for r in runs} == {("a-tag",)}
    assert len({r.run["run_id"] for r in runs}) == 3


def test_a_failed_job_is_a_failed_run(runs):
    assert [r.exit_code for r in runs] == [0, 1, 0]
    assert runs[1].logged("loss") == []


def test_the_config_is_the_resolved_one(runs):
    for rank, recorded in zip((4, HUGE, 2), runs, strict=True):
        config = recorded.config
        assert config["conditioning"]["attn"]["uc_lora"]["rank"] == rank
        assert config["choices"]["rank"] == rank
        assert config["choices"]["conditioning"] == "shift-uc_lora"
        assert config["data"]["seed"] == 0  # an interpolation
        assert "${" not in json.dumps(config)


def test_every_row_is_drawn_over_images_seen(runs):
    for recorded in (runs[0], runs[2]):
        assert recorded.axes["nimg"]["options"]["hidden"]
        assert recorded.axes["*"]["step_metric"] == "nimg"
        assert all("nimg" in row for row in recorded.history)
        assert [row["nimg"] for row in recorded.logged("loss")] == [16, 32, 48, 64]
        assert [row["nimg"] for row in recorded.logged("val_loss")] == [32, 64]
        assert [row["nimg"] for row in recorded.logged("images_per_s")] == [32, 64]
        assert all(row["memory_mib"] > 1 and row["lr"] == 1e-3 for row in recorded.logged("lr"))
        assert recorded.summary["loss"] == recorded.logged("loss")[-1]["loss"]


def test_the_values_are_those_of_metrics_csv(runs, sweep):
    rows = losses(sweep / "0")
    assert [row["loss"] for row in runs[0].logged("loss")] == [float(rows[step]) for step in range(4)]


def test_the_summary_says_what_the_network_costs(runs, sweep):
    for job, recorded in ((0, runs[0]), (2, runs[2])):
        size = json.loads((sweep / str(job) / "model.json").read_text())
        for name in ("parameters", "macs_per_image"):
            assert recorded.summary[name] == size[name] > 0
        assert recorded.summary["parameters/attention conditioning"] > 0
    assert runs[0].summary["parameters"] > runs[2].summary["parameters"]  # rank 4 and 2


def test_grids_of_equal_seeds_are_pictures_over_images_seen(runs):
    for recorded in (runs[0], runs[2]):
        grids = recorded.logged("samples._type")
        assert [(g["samples._type"], g["nimg"]) for g in grids] == [("image-file", 32), ("image-file", 64)]
        for grid in grids:
            assert (recorded.file.parent / "files" / grid["samples.path"]).is_file()


def test_artifacts_where_they_were_asked_for(runs):
    for recorded in (runs[0], runs[2]):
        kinds = {a["type"]: a for a in recorded.artifacts}
        assert {*kinds} == {"model", "samples"}
        assert {f["path"] for f in kinds["model"]["manifest"]["contents"]} == {
            "checkpoints/000000000064.ckpt",
            "config.yaml",
        }
    assert runs[1].artifacts == []


def test_nothing_outside_the_runs_folders(runs, sweep):
    """Nothing in the home directory; the environment is as it was, so no job learns from the one before."""
    home = sweep.parents[1] / "home"
    assert json.loads((home / "environment.json").read_text())
    assert sorted(p.name for p in home.iterdir()) == ["environment.json"]
    assert sorted(p.name for p in sweep.parents[1].iterdir()) == ["home", "sweeps"]


def test_the_dashboard_draws_what_runs_log(runs):
    """Every name on it, and the key that it groups by, is in what W&B recorded of a run."""
    content = json.loads(as_json(workspace("", "", "", ["conditioning"], ["val_loss"])))["spec"]["section"]
    (key,) = content["runSets"][0]["grouping"]
    top, value, inner = key["name"].split(".")
    assert (value, runs[0].config[top][inner]) == ("value", "shift-uc_lora")
    drawn = [panel for section in content["panelBankConfig"]["sections"] for panel in section["panels"]]
    lines = {
        name for panel in drawn if panel["viewType"] == "Run History Line Plot" for name in panel["config"]["metrics"]
    }
    assert lines == {"loss", "val_loss", "lr", "images_per_s"}
    assert all(runs[0].logged(name) for name in lines)
    bars = {name for panel in drawn if panel["viewType"] == "Bar Chart" for name in panel["config"]["metrics"]}
    assert {"parameters", "memory_mib"} <= bars
    assert all(name in runs[0].summary for name in bars)
    (media,) = (panel for panel in drawn if panel["viewType"] == "Media Browser")
    assert all(runs[0].logged(f"{name}._type") for name in media["config"]["mediaKeys"])

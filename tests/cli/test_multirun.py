"""Sweeps of a small program: which jobs run, where they write, how it ends, and what going on with one does."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lorafusion.cli import apart, notes, same, table
from lorafusion.cli.notes import Note

ROOT = Path(__file__).parents[2]

APP = """
import json, os, hydra
from pathlib import Path
from omegaconf import OmegaConf
from lorafusion import cli
from lorafusion.errors import UserError

def task(cfg):
    folder = Path(cfg.paths.run_dir)
    with Path("log").open("a") as log:
        said = [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
        log.write(f"{cfg.what}{cfg.seed} {said[0]} {said[1]}\\n")
    print("said by", cfg.what)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    rows = ["step,nimg,loss,val_loss,fid", "1,8,0.9,0.5,", f"2,16,0.8,{cfg.seed}.25,", "2,16,,,7"]
    (folder / "metrics.csv").write_text("\\n".join(rows))
    if cfg.what == "user":
        raise UserError("the file is not there")
    if cfg.what == "bug":
        raise type("Local", (ValueError,), {"__init__": lambda self, a, b: None})(1, 2)  # cannot be pickled
    if cfg.what == "stop":
        raise SystemExit(143)
    if cfg.what == "die":
        os._exit(9)
    status = {"state": "finished", "seconds": 1.5, "images_seen": 16, "objective": cfg.seed}
    (folder / "status.json").write_text(json.dumps(status))
    return float(cfg.seed)

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@cli.job
def main(cfg):
    return task(cfg)

if __name__ == "__main__":
    cli.run(main)
"""
CONFIG = """
what: fine
seed: 0
rank: 4
resume: null
name: at-${now:%f}
paths: {run_dir: "runs/${what}"}
where: ${paths.run_dir}/here
hydra:
  run: {dir: "${paths.run_dir}"}
  sweep: {dir: mine}
  callbacks: {multirun: {_target_: lorafusion.cli.multirun.Multirun}}
task: {_target_: builtins.print}
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG)
    (tmp_path / "app.py").write_text(APP)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
        command = [sys.executable, "app.py", "-m", *arguments]
        env = {**clean, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)

    return run


def ran(folder: Path) -> list[str]:
    return sorted(line.split()[0] for line in (folder / "log").read_text().splitlines())


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "mine" / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_failed_jobs_end_nothing_and_stand_in_the_table(app, tmp_path):
    done = app("what=user,fine,bug,fine2", "seed=0", "rank=4")
    assert done.returncode == 1
    assert ran(tmp_path) == ["bug0", "fine0", "fine20", "user0"]
    assert [row["state"] for row in rows(tmp_path)] == ["failed", "finished", "failed", "finished"]
    assert [row["what"] for row in rows(tmp_path)] == ["user", "fine", "bug", "fine2"]
    assert "seed" not in rows(tmp_path)[0]  # in which the jobs do not differ
    assert rows(tmp_path)[1] | {"objective": ""} == {
        **{"job": "1", "what": "fine", "state": "finished", "val_loss": "0.25", "fid": "7", "objective": ""},
        **{"seconds": "1.5", "images_seen": "16", "error": "", "folder": "1"},
    }
    lines = done.stdout.splitlines()
    assert lines[-1] == str(tmp_path / "mine")
    assert lines[-2] == "4 jobs: 2 failed, 2 finished"
    assert "job 0 failed: the file is not there" in lines
    assert "in task" in done.stderr  # the bug's traceback
    assert (tmp_path / "mine" / "multirun.yaml").is_file()


def test_going_on_runs_what_is_missing(app, tmp_path):
    assert app("what=fine,die", "seed=0,1").returncode == 9  # the third of four jobs took the sweep with it
    assert ran(tmp_path) == ["die0", "fine0", "fine1"]
    assert not (tmp_path / "mine" / "sweep.csv").exists()

    refused = app("what=fine,die", "seed=0,1")
    assert refused.returncode == 2
    assert "resume=auto goes on with it" in refused.stderr
    refused = app("what=fine,die", "seed=0,3", "resume=auto")
    assert refused.returncode == 2
    assert "job 1 was made with seed=1, not with seed=3" in refused.stderr
    refused = app("what=fine,die", "seed=0,1", "rank=8", "resume=auto")
    assert "job 0 was made without rank=8" in refused.stderr
    assert ran(tmp_path) == ["die0", "fine0", "fine1"]

    (tmp_path / "app.py").write_text(APP.replace("os._exit(9)", "pass"))
    done = app("what=fine,die", "seed=0,1", "resume=auto", "name=other")
    assert done.returncode == 0
    assert ran(tmp_path) == ["die0", "die0", "die1", "fine0", "fine1"]
    assert "job 0: finished already" in done.stdout
    assert [row["state"] for row in rows(tmp_path)] == ["finished"] * 4
    assert [row["objective"] for row in rows(tmp_path)] == ["0", "1", "0.0", "1.0"]


def test_a_job_whose_configuration_has_changed_is_refused_by_name(app, tmp_path):
    assert app("seed=0,1").returncode == 0
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG.replace("rank: 4", "rank: 8"))
    done = app("seed=0,1", "resume=auto")
    assert done.returncode == 1
    assert f"error: {tmp_path}/mine/0 holds another run, rank=4, now 8; choose another hydra.sweep.dir" in done.stderr
    assert ran(tmp_path) == ["fine0", "fine1"]


def test_several_at_once(app, tmp_path):
    done = app(
        "what=fine,bug,stop,user", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", CUDA_VISIBLE_DEVICES="3,5"
    )
    assert done.returncode == 1
    assert ran(tmp_path) == ["bug0", "fine0", "stop0", "user0"]
    cards = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert cards <= {"3", "5"}
    threads = {line.split()[2] for line in (tmp_path / "log").read_text().splitlines()}
    assert threads == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    assert [row["state"] for row in rows(tmp_path)] == ["finished", "failed", "stopped", "failed"]
    assert "said by" not in done.stdout
    assert "said by bug" in (tmp_path / "mine" / "1" / "output.txt").read_text()
    assert "Traceback" in (tmp_path / "mine" / "1" / "output.txt").read_text()
    assert "job 0: finished, val_loss 0.25, fid 7\n" in done.stdout
    assert "job 3: failed, the file is not there\n" in done.stdout


def test_stopped_it_ends_with_its_table(app, tmp_path):
    done = app("what=fine,stop,fine2")
    assert done.returncode == 143
    assert [row["state"] for row in rows(tmp_path)] == ["finished", "stopped", "pending"]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "mine")


def test_asked_to_stop_it_ends_with_its_table(app, tmp_path):
    (tmp_path / "app.py").write_text(APP.replace("os._exit(9)", "os.kill(os.getpid(), 15)"))
    done = app("what=fine,die,fine2")
    assert done.returncode == 143
    assert [row["state"] for row in rows(tmp_path)] == ["finished", "stopped", "pending"]


def test_a_setting_that_a_swept_choice_brings(app, tmp_path):
    """`-m experiment=a,b data.path=...`: Hydra composes once without what is swept, where there is no data.path yet."""
    (tmp_path / "conf" / "config.yaml").write_text(f"defaults: [_self_, {{kind: plain}}]\n{CONFIG}")
    (tmp_path / "conf" / "kind").mkdir()
    for name, content in (("plain", "size: 1"), ("rich", "path: null"), ("richer", "path: null\nmore: 1")):
        (tmp_path / "conf" / "kind" / f"{name}.yaml").write_text(f"{content}\n")
    done = app("kind=rich,richer", "kind.path=here", "seed=3")
    assert done.returncode == 0, done.stderr
    begun = OmegaConf.load(tmp_path / "mine" / "multirun.yaml").hydra.overrides.task
    assert begun == ["kind=rich,richer", "++kind.path=here", "seed=3"]
    for job in "01":
        assert OmegaConf.load(tmp_path / "mine" / job / "config.yaml").kind.path == "here"
    done = app("kind=rich,plain", "kind.path=here", "hydra.sweep.dir=other")
    assert done.returncode == 2
    assert "kind.path" in done.stderr
    assert not (tmp_path / "other").exists()


def test_a_job_over_several_devices_has_a_process_of_its_own(app, tmp_path):
    config = CONFIG.replace("rank: 4", "rank: 4\ntrainer: {devices: 2}")
    (tmp_path / "conf" / "config.yaml").write_text(config)
    app_py = APP.replace("    folder =", "    from hydra.core.hydra_config import HydraConfig as H\n    folder =")
    (tmp_path / "app.py").write_text(app_py.replace('print("said by"', 'print(H.get().mode, os.getppid(), "said by"'))
    done = app("what=fine,stop,user,fine2", "seed=3,4")  # the second job is stopped, and with it the sweep
    assert done.returncode == 143
    assert "RunMode.RUN" in done.stdout
    assert "RunMode.MULTIRUN" not in done.stdout
    assert ran(tmp_path) == ["fine3", "fine4", "stop3"]
    done = app(
        "what=user,fine", "seed=3,4", "hydra.sweep.dir=mine/2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert done.returncode == 1
    with (tmp_path / "mine" / "2" / "sweep.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["state"], row.get("objective")) for row in found] == [
        *(("failed", ""), ("failed", ""), ("finished", "3.0"), ("finished", "4.0"))
    ]
    assert "the file is not there" in (tmp_path / "mine" / "2" / "0" / "output.txt").read_text()


def test_what_is_distributed(monkeypatch):
    def asks(**trainer):
        return apart.is_distributed(OmegaConf.create({"trainer": trainer} if trainer else {}))

    for name in ("RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert [asks(devices=n) for n in (1, "1", [3], 2, "auto", -1, [0, 1])] == [False] * 3 + [True] * 4
    assert not asks()
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert not asks(devices=2)


def test_what_makes_a_run_another(tmp_path):
    cfg = OmegaConf.create(
        {
            **{
                "seed": 0,
                "name": "a",
                "resume": None,
                "paths": {"run_dir": "/old/3"},
                "net": {"_target_": "a.B", "w": [1]},
            },
            **{"folder": "${paths.run_dir}/x", "trainer": {"devices": 1, "precision": "32-true"}, "logger": {"csv": 1}},
        }
    )
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))

    def now(**changes):
        return same.changed(tmp_path, OmegaConf.merge(cfg, OmegaConf.create(changes)))

    assert now() is None
    assert now(name="b", resume="auto", logger={"wandb": {}}, trainer={"devices": 2}) is None
    assert now(paths={"run_dir": "/new/3"}) is None
    assert now(seed=1) == "seed=0, now 1"
    assert now(net={"w": [1, 2]}) == "net.w=[1], now [1,2]"
    assert now(net={"_target_": "a.C"}) == "net._target_=a.B, now a.C"
    assert now(trainer={"precision": "bf16"}) == "trainer.precision=32-true, now bf16"
    assert now(more=True) == "more=null, now true"
    assert now(folder="/elsewhere") == "folder=/old/3/x, now /elsewhere"
    assert same.changed(tmp_path / "none", cfg) is None
    assert same.decisive(["resume=auto", "hydra.sweep.dir=x", "+logger.csv.a=1", "seed=1", "sampler=ddim"]) == {
        *("seed=1", "sampler=ddim")
    }


def test_a_dead_job_is_killed_and_a_living_one_runs(tmp_path):
    Note(0, "0", ["a=1"]).write(tmp_path, "running")
    Note(1, "1", ["a=2"]).write(tmp_path, "running")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "status.json").write_text(json.dumps({"state": "stopped", "error": "SIGTERM"}))
    (tmp_path / ".jobs" / "2.json").write_text("{")
    found = [notes.settle(tmp_path, note) for note in notes.read_all(tmp_path)]
    assert [(note.state, note.error) for note in found] == [("killed", None), ("stopped", "SIGTERM")]
    assert table.differing(found) == ["a"]
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", program, str(tmp_path / "1" / ".lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    assert notes.settle(tmp_path, notes.read_all(tmp_path)[1]).state == "running"
    holder.communicate("\n")


def test_the_table_is_as_wide_as_it_needs():
    text = table.rendered([{"job": "0", "loss": "0.123456789"}, {"job": "10", "loss": ""}], ["job", "loss"])
    assert text == "job  loss\n0    0.123457\n10"

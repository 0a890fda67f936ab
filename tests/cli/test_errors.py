"""How a run ends: exit codes, and what is printed of an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from lorafusion.cli import said_to_user
from lorafusion.errors import UserError

ROOT = Path(__file__).parents[2]

APP = """
import hydra
from lorafusion import cli
from lorafusion.errors import UserError

def task(cfg):
    print("job", cfg.what)
    open(f"{cfg.paths.run_dir}/written", "w").close()
    if cfg.what == "user":
        raise UserError("the file is not there,\\nlook elsewhere")
    if cfg.what == "bug":
        raise ValueError("a bug")
    if cfg.what == "interrupt":
        raise KeyboardInterrupt
    if cfg.what == "lightning":  # how Lightning's Trainer ends when it is interrupted
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            exit(1)
    if cfg.what == "signal":
        raise SystemExit(143)

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@cli.job
def main(cfg):
    return task(cfg)

if __name__ == "__main__":
    cli.run(main)
"""
CONFIG = """
what: fine
paths: {run_dir: "runs/${what}"}
hydra: {run: {dir: "${paths.run_dir}"}, sweep: {dir: multirun}}
task: {_target_: builtins.print}
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG)
    (tmp_path / "app.py").write_text(APP)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "app.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )

    return run


def test_a_run_that_works(app):
    done = app()
    assert (done.returncode, done.stdout, done.stderr) == (0, "job fine\n", "")


def test_a_user_error_is_one_line(app):
    done = app("what=user")
    assert (done.returncode, done.stderr) == (1, "error: the file is not there, look elsewhere\n")


def test_a_user_error_in_full(app):
    done = app("what=user", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in task" in done.stderr


def test_a_bug_keeps_its_traceback(app):
    done = app("what=bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in task" in done.stderr
    assert "error: a bug" not in done.stderr


@pytest.mark.parametrize("what", ["interrupt", "lightning"])
def test_an_interrupt(app, what):
    done = app(f"what={what}")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_exit_code_is_passed_on(app):
    assert app("what=signal").returncode == 143


def test_in_a_multirun_the_job_fails_and_the_others_run(app):
    done = app("-m", "what=fine,user,again")
    assert done.returncode == 1
    jobs = [line for line in done.stdout.splitlines() if line.startswith("job")]
    assert jobs == ["job fine", "job user", "job again"]
    assert "error: the file is not there, look elsewhere\n" in done.stderr
    assert "Error executing job with overrides: ['what=user']" in done.stderr  # Hydra counts it as failed
    assert "Traceback" not in done.stderr


def test_each_job_of_a_multirun_has_its_own_folder(app, tmp_path):
    app("-m", "what=fine,again")
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("written")) == [
        "multirun/0/written",
        "multirun/1/written",
    ]
    app("-m", "what=fine,again", "paths.run_dir=multirun/${what}", "hydra.sweep.subdir=${what}")
    assert (tmp_path / "multirun" / "again" / "written").is_file()


def raised(config: dict) -> InstantiationException:
    with pytest.raises(InstantiationException) as error:
        instantiate(config)
    return error.value


def test_a_setting_that_our_class_refuses_is_for_the_user():
    said = said_to_user(raised({"net": {"_target_": "lorafusion.backbones.nano.NanoUNet", "resolution": 9}}))
    assert said == "net: nano halves its image three times: resolution must be a multiple of 8, got 9"


def test_a_setting_that_lightning_refuses_is_for_the_user():
    said = said_to_user(raised({"_target_": "lightning.Trainer", "accelerator": "gup", "logger": False}))
    assert said is not None
    assert "gup" in said


def test_a_user_error_inside_a_constructor_is_for_the_user():
    assert said_to_user(raised({"_target_": f"{__name__}.Refuses"})) == "no"


def test_an_error_of_another_library_is_not_for_the_user():
    assert said_to_user(raised({"_target_": "torch.nn.Linear", "in_features": "many", "out_features": 1})) is None
    assert said_to_user(raised({"_target_": "torch.nn.GroupNorm", "num_groups": 2, "num_channels": 3})) is None
    assert said_to_user(ValueError("a bug of ours")) is None
    assert said_to_user(UserError("for\nyou")) == "for you"


class Refuses:
    def __init__(self):
        raise UserError("no")

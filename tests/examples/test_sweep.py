"""examples/sweep.yaml, read by W&B's own functions: the commands that its agents would start are good ones."""

import multiprocessing

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from lorafusion.cli import check
from tests.logger.test_wandb_trouble import body
from tests.logger.wandb_files import read_runs
from tests.tasks.runs import CONF, tiny

FILE = CONF.parent / "examples" / "sweep.yaml"
# What W&B takes, from its documentation; a key that it does not know it ignores without a word.
KEYS = {"program", "project", "entity", "name", "description", "method", "metric", "parameters", "early_terminate"}
KEYS |= {"command", "run_cap"}
DISTRIBUTIONS = {"constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform_values", "normal"}


@pytest.fixture
def sweep():
    config = load_sweep_config(str(FILE))
    assert config is not None
    return config


def command(sweep, chosen):
    """Of an agent that was given ``chosen``, as W&B's agent makes it: macros that stand alone are replaced."""
    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    macros = {**arguments, "env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    words = []
    for word in create_sweep_command([*sweep["command"]]):
        words += macros[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return words


def ends(parameter):
    """The values that a parameter can take, of a range both ends."""
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def test_it_is_a_sweep(sweep):
    assert {*sweep} <= KEYS
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] in ("minimize", "maximize")
    assert sweep["early_terminate"]["type"] == "hyperband"
    for parameter in sweep["parameters"].values():
        if "values" not in parameter:
            assert parameter["distribution"] in DISTRIBUTIONS
            assert 0 < parameter["min"] < parameter["max"]  # numbers: YAML reads 3e-4 as a word
    assert yaml.safe_load(FILE.read_text()) == sweep


def test_every_command_passes_our_check(sweep, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    parameters = {name: ends(parameter) for name, parameter in sweep["parameters"].items()}
    for k in range(max(map(len, parameters.values()))):  # every value in one of them
        words = command(sweep, {name: values[k % len(values)] for name, values in parameters.items()})
        assert words[:3] == ["/usr/bin/env", "python", "run.py"]
        assert not any(word.startswith("-") for word in words)  # no -m, no --flags
        check.check(words[3:], CONF)


def test_an_agents_run_is_the_run_that_it_was_given(sweep, tmp_path):
    chosen = {"conditioning/attn": "[uc_lora]", "denoiser.optimizer.lr": 0.004, "seed": 2}
    given = tmp_path / "config-abcd1234.yaml"
    given.write_text(yaml.safe_dump({"wandb_version": 1, **{k: {"value": v} for k, v in chosen.items()}}))
    folder = tmp_path / "abcd1234"
    asked = [word for word in command(sweep, chosen)[3:] if not word.startswith(("experiment", "paths"))]
    small = tiny(folder, "images=32", "logger.wandb.mode=offline", *asked, callbacks=("throughput",))
    environment = {
        "HOME": str(tmp_path / "home"),
        "WANDB_SWEEP_ID": "sweep123",
        "WANDB_RUN_ID": "abcd1234",
        "WANDB_SWEEP_PARAM_PATH": str(given),
        "WANDB_PROJECT": "of-the-agent",
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    process = context.Process(target=body, args=(small, environment, tmp_path / "log"))
    process.start()
    process.join(120)
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    (recorded,) = read_runs(folder)
    assert (recorded.run["run_id"], recorded.run["sweep_id"]) == ("abcd1234", "sweep123")
    assert recorded.run["project"] == "of-the-agent"
    assert recorded.exit_code == 0
    assert recorded.config["seed"] == recorded.config["choices"]["seed"] == 2
    assert recorded.config["denoiser"]["optimizer"]["lr"] == 0.004
    assert recorded.logged("loss")

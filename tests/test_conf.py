"""The configuration: every yaml composes, fits the class that it names, and that class lives where its path says."""

import inspect
import re
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method, get_object
from omegaconf import OmegaConf

from lorafusion.cli import check
from lorafusion.cli.registry import Registry
from lorafusion.cli.signature import signature

CONF = Path(__file__).parents[1] / "conf"
REGISTRY = Registry(CONF)
EXPERIMENTS = REGISTRY.groups["experiment"]
ALONGSIDE = {
    g: options
    for g, options in REGISTRY.groups.items()
    if g in REGISTRY.defaults and g not in ("task", "experiment", "sweep", "conditioning/attn")
}
ATTENDS = {"class_lora": ["backbone.num_classes=10"]}  # in a network of the default choices
NEEDS = {
    "sample": ["ckpt=."],
    "evaluate": ["samples=."],
    "convert": ["file=."],
    "report": ["runs=."],
    "analyze": ["ckpt=."],
    "module": ["metric.extractor.module=mine.Net"],
}
TARGETS = sorted(
    {target for file in CONF.rglob("*.yaml") for target in re.findall(r"_target_: (\S+)", file.read_text())}
)


# Rows that together choose every option: option k of each group; the tasks and experiments one by one.
ROWS = [
    *([f"task={task}", *NEEDS.get(task, [])] for task in REGISTRY.groups["task"]),
    ["task=evaluate", "metric=bpd", "ckpt=."],
    *(["task=evaluate", "samples=.", f"metric={name}"] for name in ("fid", "kid", "inception_score")),
    *(
        ["task=evaluate", "samples=.", "metric=precision_recall", f"metric/extractor={name}", *NEEDS.get(name, [])]
        for name in REGISTRY.groups["metric/extractor"]
    ),
    *(["task=analyze", "ckpt=.", f"analysis={name}"] for name in REGISTRY.groups["analysis"]),
    *([f"experiment={experiment}"] for experiment in EXPERIMENTS),
    *([f"conditioning/attn={name}", *ATTENDS.get(name, [])] for name in REGISTRY.groups["conditioning/attn"]),
    *([f"sweep={name}"] for name in REGISTRY.groups["sweep"]),
    *(
        [f"{group}={option}" for group, option in zip(ALONGSIDE, row, strict=True) if option]
        for row in zip_longest(*ALONGSIDE.values())
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_options_compose_and_fit(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check.check(row, CONF)


def test_every_option_is_in_a_row():
    """Except those that a task's own defaults list chooses."""
    chosen = {choice.split("=")[0] for row in ROWS for choice in row}
    unchosen = {group for group in REGISTRY.groups if group not in chosen}
    assert all(REGISTRY.offered_by(group) for group in unchosen), unchosen


@cache
def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*overrides], return_hydra_config=True)


def test_the_same_tree():
    """conf/a/b/c.yaml names a class in lorafusion/a/b/, or lorafusion/as/b/; an experiment may name any."""
    for file in CONF.rglob("*.yaml"):
        folders = file.relative_to(CONF).parent.parts
        for target in re.findall(r"^(?:\w+:\n  )?_target_: lorafusion\.(\S+)", file.read_text(), re.MULTILINE):
            if not folders or folders[0] in ("experiment", "debug"):
                continue
            inside = target.split(".")
            plural = {folders[0], f"{folders[0]}s", f"{folders[0]}es"}
            assert inside[0] in plural, f"{file}: {target}"
            assert tuple(inside[1 : len(folders)]) == folders[1:], f"{file}: {target}"


@pytest.mark.parametrize("target", TARGETS)
def test_target_exists_and_its_signature_is_read_right(target):
    """What `ast` reads of a class is what Python knows of it once it is imported."""
    known = inspect.signature(get_object(target)).parameters.values()
    call = signature(target)
    assert call is not None
    assert list(call.parameters) == [p.name for p in known if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert call.open == any(p.kind is p.VAR_KEYWORD for p in known)


def test_experiments_are_deltas():
    for name in EXPERIMENTS:
        lines = REGISTRY.file("experiment", name).read_text().splitlines()
        assert lines[0] == "# @package _global_"
        assert REGISTRY.comment("experiment", name), f"{name}: one line says which row it is"
        assert len(lines) <= 60


SMALL = {  # the same network: narrow, shallow, small images; each where an experiment has the setting
    "backbone.model_channels": 32,
    "backbone.num_blocks": 1,
    "callbacks.sample_grid.n": 2,
    "sampler.steps": 2,
    "data.resolution": 16,
    "pretrained": "false",
}


def _has(cfg, key):
    parent, _, last = key.rpartition(".")
    return last in (OmegaConf.select(cfg, parent) or {}) if parent else key in cfg


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs(name, tmp_path):
    """One step of everything, on made-up images."""
    chosen = composed(f"experiment={name}", "debug=fast")
    overrides = [
        *(f"experiment={name}", "debug=fast", "data=synthetic", "data.source.n=8", "data.source.n_test=2"),
        *(
            f"data.{key}={'null' if chosen.data[key] is None else chosen.data[key]}"
            for key in ("resolution", "channels", "num_classes")
        ),
        *(f"{key}={value}" for key, value in SMALL.items() if _has(chosen, key)),
        *("data.batch_size=2", f"paths.run_dir={tmp_path}/run", f"paths.data_dir={tmp_path}/data", "trainer=cpu"),
    ]
    cfg = composed(*overrides)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]  # as @hydra.main does
    OmegaConf.set_struct(cfg, True)
    get_method(cfg.task._target_)(cfg)
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_seed_0_is_honoured():
    assert composed("seed=0").data.seed == 0
    assert composed("seed=0").denoiser.seed == 0
    assert composed("seed=1").data.seed == 1


@pytest.mark.parametrize("chosen", ["wandb", "[wandb]", "[csv,wandb]", "[wandb,csv]"])
def test_wandb_is_added_to_csv(chosen):
    assert {*composed(f"logger={chosen}").logger} == {"csv", "wandb"}


def test_a_single_name_is_a_list_of_one():
    one, listed = (composed(f"conditioning/attn={chosen}") for chosen in ("time_lora", "[time_lora]"))
    assert one.conditioning == listed.conditioning
    assert {*one.conditioning.attn} == {"time_lora"}


def test_sampling_takes_the_runs_own_sampler_unless_told():
    assert composed("task=sample", "ckpt=.").sampler is None
    assert composed("task=sample", "ckpt=.", "sampler=ddim").sampler._target_ == "lorafusion.samplers.ddim.DDIM"


def test_no_absolute_paths():
    """A configuration works on every machine."""
    for file in CONF.rglob("*.yaml"):
        for value in OmegaConf.to_yaml(OmegaConf.load(file)).split():
            assert not value.strip("'\"").startswith(("/home", "/tmp", "/work", "/root", "~")), f"{file}: {value}"

"""The configuration: every yaml composes, fits the class that it names, and that class lives where its path says."""

import inspect
import re
from functools import cache
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
OPTIONS = [(group, option) for group, options in REGISTRY.groups.items() for option in options]
EXPERIMENTS = REGISTRY.groups["experiment"]
TARGETS = sorted(
    {target for file in CONF.rglob("*.yaml") for target in re.findall(r"_target_: (\S+)", file.read_text())}
)


def brings(group: str, option: str) -> list[str]:
    """Overrides that choose an option, with what its task asks for."""
    choice = f"{group}={option}"
    with_task = {"task=sample": ["ckpt=."], "task=evaluate": ["samples=."], "task=convert": ["file=."]}
    if group not in REGISTRY.defaults:
        choice = f"+{choice}" if not (added := REGISTRY.offered_by(group)) else choice
        tasks = [task for task in added if task.startswith("task=")]
        return [*tasks[:1], *with_task.get(tasks[0], []), choice] if tasks else [choice]
    return [choice, *with_task.get(choice, [])]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_fits(group, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check.check(brings(group, option), CONF)


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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs(name, tmp_path):
    """One step of everything, on made-up images of the right size."""
    cfg = composed(f"experiment={name}")
    overrides = [
        *(f"experiment={name}", "debug=fast", "data=synthetic", "data.batch_size=4"),
        *(f"data.{key}={cfg.data[key]}" for key in ("resolution", "channels", "num_classes")),
        *(f"paths.run_dir={tmp_path}/run", f"paths.data_dir={tmp_path}/data", "trainer=cpu"),
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

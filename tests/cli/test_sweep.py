"""What cannot work is refused before anything runs: by the rules of the classes, in one job or in a grid of them."""

import shlex
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lorafusion.cli import check, sweep
from lorafusion.cli.mistake import Mistake
from lorafusion.cli.overrides import alternatives, check_group, parse
from lorafusion.cli.registry import Registry
from lorafusion.cli.strategies import declared, refusal
from lorafusion.conditioning import Conditioning
from lorafusion.rules import broken

CONF = Path(__file__).parents[2] / "conf"
REGISTRY = Registry(CONF)
STRATEGIES = REGISTRY.groups["conditioning/attn"]
SMALL = {"model_channels": 32, "num_blocks": 1, "heads": 1}


def both(backbone: dict, attn: dict) -> tuple[str | None, str | None]:
    """Why the command line refuses a conditioning, and why the network does."""
    cfg = OmegaConf.create({"backbone": backbone, "conditioning": {"conv": {}, "attn": attn}})
    try:
        with torch.device("meta"):
            Conditioning(attn=instantiate(cfg.conditioning.attn, _convert_="all")).attach(instantiate(cfg.backbone))
    except ValueError as error:
        return refusal(cfg), str(error)
    return refusal(cfg), None


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_command_line_and_the_network_agree(name):
    node = yaml.safe_load(REGISTRY.file("conditioning/attn", name).read_text())
    nano = {"_target_": "lorafusion.backbones.nano.NanoUNet", "resolution": 16, "attn_resolutions": [4]}
    for steps in (None, 20):
        for classes in (None, 3):
            for more in ({}, {"rank": 0}, {"num_bases": 0, "compositional": True}):
                settings = {k: v for k, v in more.items() if k in node[name]}
                backbone = {**nano, "num_steps": steps, "num_classes": classes}
                said, raised = both(backbone, {name: {**node[name], **settings}})
                assert said == raised


@pytest.mark.parametrize("name", REGISTRY.groups["backbone"])
@pytest.mark.parametrize("sizes", [[], [3], [8]], ids=str)
def test_where_there_is_no_attention(name, sizes):
    node = yaml.safe_load(REGISTRY.file("backbone", name).read_text())
    node |= {key: value for key, value in SMALL.items() if key in node}
    node = {k: v for k, v in node.items() if "${" not in str(v)} | {"resolution": 16, "attn_resolutions": sizes}
    said, raised = both(node, {"ada_ln": {"_target_": "lorafusion.conditioning.attn.ada_ln.AdaLN"}})
    assert (said is None) == (raised is None)
    if said:
        assert said.startswith(f"ada_ln enters attention, and this network has none: backbone.attn_resolutions={sizes}")


def test_what_a_class_declares_is_read_from_its_source():
    assert declared("lorafusion.backbones.nano.NanoUNet", "attends_at") == "attn_resolutions"
    assert declared("lorafusion.backbones.iddpm.IDDPMUNet", "attends_at") is None
    assert declared("lorafusion.nowhere.Nothing", "refuses") is None
    assert "num_steps is None" in declared("lorafusion.conditioning.attn.time_lora.TimeLoRA", "refuses")


def test_conditions():
    facts = {"a": None, "b": 3, "c": True}
    for condition in ("a is None", "b > 2 and c", "not c or b == 3", "b is not None and b <= 3", "a is None or b < a"):
        assert broken({condition: "no"}, facts) == "no"
    for condition in ("a is not None", "b != 3", "b >= 4", "a is not None and b < a"):
        assert broken({condition: "no"}, facts) is None
    for condition in ("print(b)", "b + 1", "[b]", "1 < b < 4"):
        with pytest.raises(ValueError, match="a rule is made of"):
            broken({condition: "no"}, facts)
    with pytest.raises(KeyError):
        broken({"d is None": "no"}, facts)


REFUSED = {
    "process=edm conditioning/attn=[time_lora]": "process=ddpm",
    "conditioning/attn=[class_lora]": "backbone.num_classes='${data.num_classes}'",
    "backbone.attn_resolutions=[]": "conditioning/attn=[]",
    "conditioning.attn.uc_lora.rank=0": "uc_lora: rank must be at least 1",
    "-m process=ddpm,edm conditioning/attn=[uc_lora],[time_lora] seed=range(0,99)": (
        "no job can run with process=edm conditioning/attn=[time_lora]\n"
    ),
    "-m sweep=conditioning process=edm": "no job can run with conditioning/attn=[time_lora]\n",
    "-m conditioning/attn=[class_lora],[uc_lora] backbone.num_classes=null,${data.num_classes}": (
        "no job can run with conditioning/attn=[class_lora] backbone.num_classes=null\n"
    ),
    "sweep=conditioning seed=0,x": "seed=x: should be a whole number",
    "sweep=conditionin": "did you mean sweep=conditioning?",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_refused_before_anything_runs(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Mistake) as mistake:
        check.check(typed.split(), CONF)
    said = str(mistake.value)
    assert REFUSED[typed] in f"{said}\n"
    assert said.count("\n") <= 2
    assert not [*tmp_path.iterdir()]


def test_seeds_and_rates_do_not_multiply_what_is_composed(monkeypatch):
    """Of 2 x 4 x 100 x 3 jobs each choice of conditioning once, and one more rate, for it is no whole number."""
    composed = []

    def compose(job, to_run):
        composed.append({o.key_or_group: o.value() for o in job})
        return OmegaConf.create({"backbone": {}, "conditioning": {"attn": {str(composed[-1]["attn"]): {}}, "conv": {}}})

    composer = type("Composer", (), {"registry": REGISTRY, "check": staticmethod(compose)})
    texts = ["conv=a,b", "attn=[1],[2],[3],[4]", "seed=range(0,100)", "rate=1,2,0.5"]
    sweep.check_jobs([parse(text, REGISTRY) for text in texts], composer)
    assert len(composed) == 1 + 1 + 3 + 1


def test_what_the_user_gives_replaces_what_the_sweep_would_try():
    overrides = [parse(text, REGISTRY) for text in ("sweep=conditioning", "seed=7")]
    found = [str(o.input_line) for o in sweep.swept(overrides, REGISTRY)]
    assert "seed=7" in found
    assert sum(text.startswith("seed=") for text in found) == 1
    assert "conditioning/conv=[],[shift]" in found
    assert sweep.is_multirun(overrides, False, REGISTRY)
    assert not sweep.is_multirun([*overrides, parse("hydra.mode=RUN", REGISTRY)], False, REGISTRY)
    assert not sweep.is_multirun([parse("seed=1", REGISTRY)], False, REGISTRY)


DOCUMENTED = [
    shlex.split(line, comments=True)[2:]
    for line in (CONF.parent / "docs" / "sweeps.md").read_text().splitlines()
    if line.startswith("python run.py")
]


@pytest.mark.parametrize("command", DOCUMENTED, ids=" ".join)
def test_what_the_page_says_can_be_typed(command):
    for text in command:
        for override in alternatives(parse(text, REGISTRY), REGISTRY) if text != "-m" else ():
            check_group(override, REGISTRY)

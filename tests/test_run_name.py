"""Names say what was chosen, and read nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lorafusion.run_name import choices, run_name
from tests.tasks.runs import composed

EDM = ("experiment=cifar10/edm_with_lora",)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "mnist_5k-nano-ddpm-shift-uc_lora-r4-s0"),
        (("seed=3", "conditioning/conv=[]"), "mnist_5k-nano-ddpm-uc_lora-r4-s3"),
        (("conditioning/attn=[]",), "mnist_5k-nano-ddpm-shift-s0"),
        (("conditioning/attn=[]", "conditioning/conv=[]"), "mnist_5k-nano-ddpm-none-s0"),
        ((*EDM, "conditioning/conv=[]"), "cifar10-edm-uc_lora-r4-s0"),
        ((*EDM, "conditioning.attn.uc_lora.rank=8"), "cifar10-edm-shift-uc_lora-r8-s0"),
        (("experiment=cifar10_cond/edm_ada_ln",), "cifar10_cond-edm-ada_ln-s0"),
        (
            ("conditioning/attn=[time_lora,class_lora]", "conditioning.attn.class_lora.rank=8"),
            "mnist_5k-nano-ddpm-shift-time_lora+class_lora-r4+8-s0",
        ),
        (("conditioning/attn=[time_lora,class_lora]",), "mnist_5k-nano-ddpm-shift-time_lora+class_lora-r4-s0"),
    ],
    ids=str,
)
def test_the_name_is_made_of_the_choices(overrides, name):
    cfg = composed(*overrides)
    assert run_name(cfg) == name
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert run_name(plain) == name  # as config.yaml holds it
    for elsewhere in ("paths", "name", "images", "hydra", "logger", "task"):
        plain.pop(elsewhere, None)
    assert run_name(plain) == name


def test_what_a_config_lacks_the_name_lacks():
    assert run_name({"data": {"name": "x"}, "denoiser": {"name": "edm"}}) == "x-edm-none"
    assert run_name({}) == "none"


def test_choices_tell_runs_apart():
    chosen = choices(composed(*EDM))
    assert chosen == {
        "data": "cifar10",
        "class_conditional": False,
        "denoiser": "edm",
        "process": "edm",
        "backbone": "ddpmpp",
        "conv": "shift",
        "attn": "uc_lora",
        "conditioning": "shift-uc_lora",
        "rank": 4,
        "seed": 0,
    }


def test_no_torch_and_no_wandb():
    program = "import lorafusion.run_name, sys; assert not {'torch', 'numpy', 'wandb', 'omegaconf'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])

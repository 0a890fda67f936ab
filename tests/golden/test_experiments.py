"""Every row of the paper's tables is an experiment, and each has the parameters that the paper publishes for it.

`paper:` in an experiment holds the published figures; they are held here against the tables, and its network against
them.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from lorafusion.errors import UserError
from lorafusion.tasks.profile import by_part
from lorafusion.tasks.train import train
from tests.golden.test_counts import uc_lora

CONF = Path(__file__).parents[2] / "conf"

# experiment: (FID, parameters, NFE); None where the paper's tables leave it open
TABLES = {
    "cifar10/iddpm": (3.69, 52_546_438, 4000),
    "cifar10/iddpm_only_lora": (3.64, 47_591_440, 4001),
    "cifar10/iddpm_with_lora": (3.37, 54_880_528, 4001),
    "cifar10/edm": (1.97, 55_733_891, 35),
    "cifar10/edm_only_lora": (1.99, 53_411_675, 35),
    "cifar10/edm_with_lora": (1.96, 57_745_499, 35),
    "cifar10/edm_with_lora_pretrained": (1.91, 57_745_499, 35),
    "cifar10/edm_with_lora_m9": (1.99, None, 35),
    "cifar10/edm_with_lora_m36": (1.95, None, 35),
    "cifar10/edm_with_lora_r2": (1.93, None, 35),
    "cifar10/edm_with_lora_r8": (1.96, None, 35),
    "cifar10/edm_ada_ln": (2.16, None, 35),
    "cifar10_cond/iddpm": (3.38, 52_551_558, 4000),
    "cifar10_cond/iddpm_only_lora": (2.91, None, 4001),
    "cifar10_cond/iddpm_with_lora": (3.12, None, 4001),
    "cifar10_cond/edm": (1.79, 55_735_299, 35),
    "cifar10_cond/edm_only_lora": (1.82, None, 35),
    "cifar10_cond/edm_with_lora": (1.75, None, 35),
    "cifar10_cond/edm_ada_ln": (2.00, None, 35),
    "cifar10_cond/edm_class_lora": (None, None, 35),
    "imagenet64/iddpm": (19.2, 121_063_942, 4000),
    "imagenet64/iddpm_only_lora": (18.2, 113_602_960, 4001),
    "imagenet64/iddpm_with_lora": (18.1, 139_278_224, 4001),
    "ffhq64/edm": (2.39, 61_805_571, 79),
    "ffhq64/edm_only_lora": (2.46, None, 79),
    "ffhq64/edm_with_lora": (2.37, None, 79),
    "ffhq64/edm_with_lora_pretrained": (2.31, None, 79),
}
_TEXT = uc_lora(256, r=4, m=20, mlp=(128, 64))
# of `imagenet64/iddpm_with_lora` the published count fits no reading of the text; the others are open there, and follow
# by the closed forms of test_counts.py
OURS = {
    "imagenet64/iddpm_with_lora": 124_175_248,
    **{
        f"cifar10/edm_with_lora_{name}": 55_733_891 + 6 * uc_lora(256, r=r, m=m, mlp=(128, 64))
        for name, r, m in (("m9", 4, 9), ("m36", 4, 36), ("r2", 2, 18), ("r8", 8, 18))
    },
    "ffhq64/edm_only_lora": 58_819_827 + 6 * (uc_lora(256, r=4, m=20, mlp=(128, 128)) - _TEXT),
    "ffhq64/edm_with_lora": 61_805_571 + 6 * (_TEXT + 2),  # and a learned scale on each of two layers
    "cifar10_cond/edm_class_lora": 55_733_891 + 6 * 10 * 4 * 6 * 256,
    "cifar10_cond/edm_only_lora": 53_411_675 + 1408,
    "cifar10_cond/edm_with_lora": 57_745_499 + 1408,
    "cifar10_cond/iddpm_only_lora": 47_591_440 + 15 * 10 * 4 * 6 * 256,
    "cifar10_cond/iddpm_with_lora": 54_880_528 + 5120 + 15 * 10 * 4 * 6 * 256,
}


@cache
def composed(name: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"experiment={name}"])


def count(name: str) -> int:
    cfg = composed(name)
    with torch.device("meta"):
        net = instantiate(cfg.conditioning, _convert_="all").attach(instantiate(cfg.backbone))
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", TABLES)
def test_parameters(name):
    wanted = OURS.get(name, TABLES[name][1])
    assert wanted is None or count(name) == wanted


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_figures_stand_beside_it(name):
    paper = composed(name).paper
    assert (paper.fid, paper.parameters, paper.nfe) == TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_evaluations_of_the_network(name):
    cfg = composed(name)
    heun = cfg.sampler.get("churn") is not None
    steps = cfg.process.num_steps if cfg.sampler.steps is None else cfg.sampler.steps
    assert (2 * steps - 1 if heun else steps) == cfg.paper.nfe


def test_no_row_is_missing_and_none_is_made_up():
    files = {
        file.relative_to(CONF / "experiment").with_suffix("").as_posix()
        for folder in ("cifar10", "cifar10_cond", "imagenet64", "ffhq64")
        for file in (CONF / "experiment" / folder).glob("*.yaml")
    }
    assert files == {*TABLES}


@pytest.mark.parametrize("name", TABLES)
def test_recipes(name):
    """As published: lengths, batches, learning rates, dropout, augmentation, averages."""
    cfg = composed(name)
    data, model = name.split("/")[0], name.split("/")[1].split("_")[0]
    batch = {"cifar10": 512, "cifar10_cond": 512, "ffhq64": 256}[data] if model == "edm" else 128
    assert cfg.data.batch_size == batch
    assert cfg.name == name.replace("/", "-")
    ema = cfg.callbacks.ema
    if model == "iddpm":
        assert cfg.images == batch * {"imagenet64": 1_500_000}.get(data, 500_000)
        assert (ema.decay, ema.halflife_images, ema.rampup) == (0.9999, None, None)
        assert cfg.backbone.dropout == {"imagenet64": 0.0}.get(data, 0.3)
        assert (cfg.denoiser.optimizer.lr, cfg.denoiser.timesteps) == (1e-4, "uniform")
        assert (cfg.process.schedule, cfg.process.objective) == ("cosine", "hybrid")
        assert (cfg.sampler.variance, cfg.sampler.clip) == ("learned", True)
    else:
        assert cfg.images == 200_000_000
        assert (ema.decay, ema.halflife_images, ema.rampup) == (None, 500_000, 0.05)
        assert cfg.backbone.dropout == {"ffhq64": 0.05}.get(data, 0.13)
        assert cfg.denoiser.optimizer.lr == {"ffhq64": 2e-4}.get(data, 1e-3)
        assert cfg.denoiser.augment.p == {"ffhq64": 0.15}.get(data, 0.12)
        assert cfg.denoiser.schedule.rampup_images == 10_000_000


def test_the_pretrained_rows_start_from_nothing_else():
    assert {name for name in TABLES if composed(name).get("pretrained")} == {n for n in TABLES if "pretrained" in n}
    with pytest.raises(UserError, match="init_from"):
        train(composed("cifar10/edm_with_lora_pretrained"))


def test_profile_adds_up_to_the_network():
    cfg = composed("cifar10_cond/edm_with_lora")
    assert sum(size.parameters for size in by_part(cfg).values()) == count("cifar10_cond/edm_with_lora")

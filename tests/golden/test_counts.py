"""The networks have the parameter counts that the paper publishes, built from their yamls.

``published`` holds the counts of the paper's tables; the counts that it leaves open follow by the closed forms below.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

CONF = Path(__file__).parents[2] / "conf"

IDDPM_32 = ["backbone=iddpm_32", "data.resolution=32", "process.num_steps=4001"]
IDDPM_64 = ["backbone=iddpm_64", "data.resolution=64", "process.num_steps=4001"]
EDM_32 = ["backbone=ddpmpp_32", "data.resolution=32", "process=edm"]
EDM_64 = ["backbone=ddpmpp_64", "data.resolution=64", "process=edm"]
CONDITIONAL = ["backbone.num_classes=10"]

IDDPM_CONV, EDM_CONV, NO_CONV = (f"conditioning/conv=[{name}]" for name in ("scale_shift", "shift", ""))
NO_LORA, TIME, TIME_CLASS, UC = (
    f"conditioning/attn=[{name}]" for name in ("", "time_lora", "time_lora,class_lora", "uc_lora")
)

PUBLISHED = {
    "iddpm": ([*IDDPM_32, IDDPM_CONV, NO_LORA], 52_546_438),
    "iddpm only lora": ([*IDDPM_32, NO_CONV, TIME], 47_591_440),
    "iddpm with lora": ([*IDDPM_32, IDDPM_CONV, TIME], 54_880_528),
    "iddpm conditional": ([*IDDPM_32, *CONDITIONAL, IDDPM_CONV, NO_LORA], 52_551_558),
    "edm": ([*EDM_32, EDM_CONV, NO_LORA], 55_733_891),
    "edm only lora": ([*EDM_32, NO_CONV, UC], 53_411_675),
    "edm with lora": ([*EDM_32, EDM_CONV, UC], 57_745_499),
    "edm conditional": ([*EDM_32, *CONDITIONAL, EDM_CONV, NO_LORA], 55_735_299),
    "iddpm 64": ([*IDDPM_64, IDDPM_CONV, NO_LORA], 121_063_942),
    "iddpm 64 only lora": ([*IDDPM_64, NO_CONV, TIME], 113_602_960),
    "edm 64": ([*EDM_64, EDM_CONV, NO_LORA], 61_805_571),
}


@cache
def _built(overrides: tuple[str, ...]) -> torch.nn.Module:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["data.channels=3", *overrides])
    with torch.device("meta"):
        return instantiate(config.conditioning, _convert_="all").attach(instantiate(config.backbone))


def build(overrides: list[str]) -> torch.nn.Module:
    return _built(tuple(overrides))


def count(overrides: list[str]) -> int:
    return sum(p.numel() for p in build(overrides).parameters())


@pytest.mark.parametrize(("overrides", "published"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_counts(overrides, published):
    assert count(overrides) == published


def attention_widths(overrides: list[str]) -> list[int]:
    return [site.channels for site in build(overrides).sites() if "qkv" in site.slots]


def test_attention_blocks():
    """Where the networks have attention, as the papers say: these widths and the closed forms give every count."""
    assert attention_widths([*IDDPM_32, NO_CONV, NO_LORA]) == [256] * 15
    assert attention_widths([*IDDPM_64, NO_CONV, NO_LORA]) == [384] * 3 + [512] * 8 + [384] * 4
    assert attention_widths([*EDM_32, NO_CONV, NO_LORA]) == [256] * 6
    assert attention_widths([*EDM_64, NO_CONV, NO_LORA]) == [256] * 6


def uc_lora(c: int, *, r: int, m: int, mlp: tuple[int, int], scale: int = 0) -> int:
    """Of one attention block of c channels: A, B, the composed bias and the MLP, on C -> 3C and on C -> C."""
    w1, w2 = mlp
    gate = (512 * w1 + w1) + 2 * w1 + (w1 * w2 + w2) + 2 * w2 + (w2 * m + m)
    return sum(m * r * c + 2 * m * r * out + gate + scale for out in (3 * c, c))


def time_lora(c: int, *, r: int, m: int, rows: int) -> int:
    """Of one attention block: A, B and the table (TimeLoRA's of T rows; ClassLoRA has none)."""
    return sum(m * r * (c + out) + rows * m for out in (3 * c, c))


@pytest.mark.parametrize(("r", "m"), [(4, 9), (4, 18), (4, 36), (2, 18), (8, 18)])
def test_ranks_and_bases_of_table_2(r, m):
    options = [f"conditioning.attn.uc_lora.rank={r}", f"conditioning.attn.uc_lora.num_bases={m}"]
    added = sum(uc_lora(c, r=r, m=m, mlp=(128, 64)) for c in [256] * 6)
    assert count([*EDM_32, EDM_CONV, UC, *options]) == 55_733_891 + added


def test_conditional_counts_that_the_paper_leaves_open():
    """EDM adds 128 K + 128 to embed classes; IDDPM 512 K, and ClassLoRA where LoRA reads the class."""
    assert count([*EDM_32, *CONDITIONAL, NO_CONV, UC]) == 53_411_675 + 1408
    assert count([*EDM_32, *CONDITIONAL, EDM_CONV, UC]) == 57_745_499 + 1408
    classes = 15 * time_lora(256, r=4, m=10, rows=0)
    assert count([*IDDPM_32, *CONDITIONAL, NO_CONV, TIME_CLASS]) == 47_591_440 + classes
    assert count([*IDDPM_32, *CONDITIONAL, IDDPM_CONV, TIME_CLASS]) == 54_880_528 + 5120 + classes


def test_imagenet_with_lora():
    """124,175,248. The published 139,278,224 fits no reading of the paper's text."""
    added = sum(time_lora(c, r=4, m=11, rows=4001) for c in [384] * 7 + [512] * 8)
    assert count([*IDDPM_64, IDDPM_CONV, TIME]) == 121_063_942 + added == 124_175_248


def test_ffhq_forms():
    """By the paper's text, and in the two forms that its published counts come out with: see ``mlp`` and ``scale``."""
    m20, learned = "conditioning.attn.uc_lora.num_bases=20", "conditioning.attn.uc_lora.scale=learned"
    wide = "conditioning.attn.uc_lora.mlp=[128,128]"
    text, published = (6 * uc_lora(256, r=4, m=20, mlp=mlp) for mlp in ((128, 64), (128, 128)))
    only = count([*EDM_64, NO_CONV, UC, m20])
    assert only == 58_819_827
    assert count([*EDM_64, NO_CONV, UC, m20, wide]) == only + published - text
    assert count([*EDM_64, EDM_CONV, UC, m20]) == 61_805_571 + text
    assert count([*EDM_64, EDM_CONV, UC, m20, learned]) == 61_805_571 + text + 12


def test_ada_ln_counts():
    """Table 3: without conditioning in the convolutions, a scale and a shift for each attention block."""
    ada_ln = "conditioning/attn=[ada_ln]"
    lora = 6 * uc_lora(256, r=4, m=18, mlp=(128, 64))
    affine = 6 * (512 * 2 * 256 + 2 * 256)
    assert count([*EDM_32, NO_CONV, ada_ln]) == 53_411_675 - lora + affine


def test_nobody_reads_the_embedding():
    """Without a reader it is gone: IDDPM only LoRA has neither it nor the labels' embedding."""
    for overrides in ([*IDDPM_32, *CONDITIONAL, NO_CONV, TIME], [*EDM_32, *CONDITIONAL, NO_CONV, NO_LORA]):
        assert not [name for name, _ in build(overrides).named_parameters() if name.startswith("embedding")]


def test_ncsnpp_adds_to_ddpmpp():
    """Features twice as wide (read by the first layer and by augmentation), and the pyramid's convolutions."""
    ncsnpp = ["backbone=ncsnpp_32", "data.resolution=32", "process=edm", EDM_CONV, NO_LORA]
    pyramid = (9 * 3 * 256 + 256) + (9 * 256 * 256 + 256)
    assert count(ncsnpp) == 55_733_891 + 128 * 512 + 128 * 9 + pyramid == 56_397_827

"""Parameters and multiply-adds by part, against counts by hand."""

import json

import pytest

from lorafusion.tasks.profile import by_part, profile
from tests.tasks.runs import composed


def test_the_published_network_and_its_parts():
    cfg = composed("experiment=mnist/nano_shift", "backbone.attn_resolutions=[]")
    parts = by_part(cfg)
    assert sum(p.parameters for p in parts.values()) == 437_532
    # Seven small MLPs, Linear(100, d) - Linear(d, d), at the stages' input widths.
    mlps = sum(100 * d + d + d * d + d for d in (1, 10, 20, 40, 80, 40, 20))
    assert parts["conv conditioning"].parameters == mlps
    assert parts["conv conditioning"].macs == sum(100 * d + d * d for d in (1, 10, 20, 40, 80, 40, 20))
    assert parts["embedding"].parameters == parts["attention conditioning"].parameters == 0


def test_multiply_adds_of_a_lora_by_its_formula():
    cfg = composed("task=profile", "data.resolution=16", "conditioning/conv=[]", "conditioning/attn=[time_lora]")
    cfg.conditioning.attn.time_lora.rank, cfg.conditioning.attn.time_lora.num_bases = 3, 5
    parts = by_part(cfg)
    expected_macs = expected_parameters = 0
    for width, tokens in ((20, 64), (40, 16), (20, 16), (10, 64)):  # the four attention blocks of nano at 16 px
        for d_in, d_out in ((width, 3 * width), (width, width)):
            expected_macs += tokens * 15 * (d_in + d_out)
            expected_parameters += 15 * (d_in + d_out) + 1000 * 5
    assert parts["attention conditioning"].macs == expected_macs
    assert parts["attention conditioning"].parameters == expected_parameters
    assert parts["embedding"].macs == 0


def test_a_class_embedding_is_a_part_of_its_own():
    cfg = composed("backbone.num_classes=10", "data.resolution=8", "backbone.attn_resolutions=[4]")
    parts = by_part(cfg)
    assert parts["embedding"].parameters == 10 * 100


@pytest.mark.parametrize("experiment", ["mnist/nano_uc_lora", "demo"])
def test_the_last_line_is_one_json_object(experiment, capsys):
    profile(composed(f"experiment={experiment}", "task=profile"))
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found["parameters"] == found["trainable"] == sum(p["parameters"] for p in found["parts"].values())
    assert found["macs_per_image"] == sum(p["macs_per_image"] for p in found["parts"].values())
    assert max(map(len, lines[:-1])) <= 80

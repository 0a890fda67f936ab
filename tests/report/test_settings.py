"""What repeats what, and where configurations differ."""

from pathlib import Path

from lorafusion.report.settings import MISSING, at, differences, essence, show
from tests.report.made_up import config


def differ(*configs):
    return {d.path: d.values for d in differences([essence(c) for c in configs])}


def test_seeds_names_and_places_do_not_count():
    a = config(Path("/runs/0"), seed=0)
    b = config(Path("/elsewhere/7"), seed=7, name="other", tags=["x"])
    assert essence(a) == essence(b)
    assert "'seed'" not in repr(essence(a))


def test_a_setting_is_said_once_by_its_shortest_name():
    a, b = (config(Path("/runs/0"), conv="none", conditioning__attn={"uc_lora": {"rank": r}}) for r in (4, 8))
    for made in (a, b):
        made["denoiser"]["conditioning"] = made["conditioning"]
    assert differ(a, b) == {"conditioning.attn.uc_lora.rank": (4, 8)}


def test_a_branch_that_some_lack_is_one_line():
    a, b, c = (config(Path("/r"), attn=attn) for attn in ("uc_lora", "none", "uc_lora"))
    (found,) = differences([essence(x) for x in (a, b, c)])
    assert found.path == "conditioning.attn.uc_lora"
    assert [value is MISSING for value in found.values] == [False, True, False]
    assert found.content == "rank 4, num_bases 18"


def test_a_branch_that_differs_inside_is_said_inside():
    made = [config(Path("/r"), conditioning__attn={"uc_lora": {"rank": rank, "mlp": [1]}}) for rank in (2, 4)]
    made.append(config(Path("/r"), attn="none"))
    assert differ(*made)["conditioning.attn.uc_lora.rank"] == (2, 4, MISSING)
    assert differ(*made)["conditioning.attn.uc_lora.mlp"] == ([1], [1], MISSING)


def test_true_is_not_one_and_none_is_not_missing():
    assert differ({"a": 1}, {"a": True}) == {"a": (1, True)}
    assert differ({"a": None}, {}) == {"a": (None, MISSING)}
    assert differ({"a": float("nan")}, {"a": float("nan")}) == {}


def test_odd_configs_are_compared_too():
    assert differ({"callbacks": None, "paths": 3}, {"callbacks": [1], "paths": []}) == {"callbacks": (None, [1])}
    assert at({"a": [1]}, "a.b") is None


def test_as_on_the_command_line():
    values = [None, True, 0.001, 1.0, 1e-5, [1, "a"], {"rank": 4, "_target_": "x"}, "lorafusion.samplers.ddim.DDIM"]
    assert [show(v) for v in values] == ["null", "true", "0.001", "1.0", "1e-05", "[1, a]", "{rank 4}", "DDIM"]
    assert show(0.1234567891) == "0.1234567891"

import pytest

from lorafusion.cli.mistake import Mistake, nearest, suggest
from lorafusion.cli.registry import Registry


@pytest.fixture
def registry(tmp_path):
    files = {
        "config.yaml": "defaults:\n  - fruit: apple\n  - tree/leaf: [big]\n  - plan: null\nsize: 1\n",
        "fruit/apple.yaml": "# red, or green\n_target_: x.Apple\nseeds: {many: 5}\n",
        "fruit/pear.yaml": "defaults: [{/jam: sweet}]\nsoft: true # when ripe\n",
        "tree/leaf/big.yaml": "big: {}\n",
        "plan/a/first.yaml": "# @package _global_\n# the first plan\nsize: 2\n",
        "jam/sweet.yaml": "sugar: 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Registry(tmp_path)


def test_groups_are_the_folders_that_are_chosen_from(registry):
    assert registry.groups == {
        "fruit": ["apple", "pear"],
        "jam": ["sweet"],
        "plan": ["a/first"],
        "tree/leaf": ["big"],
    }
    assert [group for group in registry.groups if registry.takes_list(group)] == ["tree/leaf"]


def test_what_an_option_brings(registry):
    assert registry.offers("fruit", "apple") == {"fruit.seeds", "fruit.seeds.many"}
    assert registry.offers("plan", "a/first") == {"size"}
    assert registry.offered_by("fruit.soft") == ["fruit=pear"]
    assert registry.offered_by("jam") == ["fruit=pear"]
    assert registry.offered_by("tree.leaf.big") == ["tree/leaf=[big]"]


def test_comments(registry):
    assert registry.comment("fruit", "apple") == "red, or green"
    assert registry.comment("fruit", "pear", "soft") == "when ripe"
    assert registry.comment("plan", "a/first") == "the first plan"
    assert registry.comment("fruit", "pear") == ""
    with pytest.raises(KeyError):
        registry.file("fruit", "plum")


def test_nearest():
    names = ["rank", "a.b.rank", "precision", "train.precision"]
    assert nearest("rnak", names)[0] == "rank"
    assert nearest("b.rank", names)[0] == "a.b.rank"
    assert nearest("precison", names) == ["precision"]
    assert nearest("zzz", names) == []
    assert suggest("zzz", ["b", "a"]) == "choose from a, b"
    assert suggest("zzz", []) == ""


def test_an_answer_has_at_most_three_short_lines():
    lines = str(Mistake("a\nb" * 200, "c", "", "d", "e")).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 200
    assert [line.strip() for line in lines[1:]] == ["c", "d"]

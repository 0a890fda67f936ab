"""Which folders are runs, from whatever is named."""

import pytest

from lorafusion.errors import UserError
from lorafusion.report.find import find
from tests.report import made_up


@pytest.fixture
def outputs(tmp_path):
    """outputs/2026-11-27/{alone, sweep/{0, 2, 10}}, a run of W&B alone, and what is no run."""
    day = tmp_path / "outputs" / "2026-11-27"
    for folder in (day / "alone", *(day / "sweep" / job for job in ("10", "2", "0"))):
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("step,nimg\n")
    offline = day / "watched" / "wandb" / "offline-run-1"
    offline.mkdir(parents=True)
    (offline / "run-1.wandb").write_bytes(b"")
    (day / "sweep" / "multirun.yaml").write_text("hydra: {}\n")
    (day / "alone" / ".hydra").mkdir()
    (day / "alone" / ".hydra" / "config.yaml").write_text("a: 1\n")
    (day / "looking" / ".hydra").mkdir(parents=True)
    (day / "looking" / ".hydra" / "config.yaml").write_text("task=profile leaves this\n")
    (day / "sweep" / "round").symlink_to(day)
    return tmp_path / "outputs"


def names(folders, below):
    return [str(folder.relative_to(below)) for folder in folders]


def test_everything_below_in_the_order_of_people(outputs):
    day = outputs / "2026-11-27"
    assert names(find([str(outputs)]), day) == ["alone", "sweep/0", "sweep/2", "sweep/10", "watched"]


def test_lists_patterns_and_overlaps_give_each_run_once(outputs):
    day = outputs / "2026-11-27"
    found = find([f"{outputs}/*/sweep", f"{day}/sweep/1*", str(day / "alone"), str(day / "sweep" / "0")])
    assert names(found, day) == ["alone", "sweep/0", "sweep/2", "sweep/10"]


def test_depth_is_bounded(tmp_path):
    made_up.run(tmp_path / "/".join("abcdef"))
    with pytest.raises(UserError, match="no run in there"):
        find([str(tmp_path)])
    assert len(find([str(tmp_path / "a")])) == 1


@pytest.mark.parametrize(
    ("named", "says"), [("nowhere", "no such folder"), ("no*thing", "no run"), ("a**b", "a\\*\\*b")]
)
def test_nothing_is_one_line(tmp_path, monkeypatch, named, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says) as said:
        find([named])
    assert "\n" not in str(said.value)

"""The dashboard: what W&B's own models make of it, and what is said where it cannot be saved."""

import json
import os
import socket
import sys
from types import SimpleNamespace

import pytest
import wandb
import wandb_workspaces.workspaces as ws
from wandb_workspaces.workspaces import internal

from lorafusion.errors import UserError
from lorafusion.run_name import choices
from lorafusion.tasks import dashboard
from lorafusion.tasks.dashboard_panels import COSTS, workspace
from tests.tasks.runs import composed


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a dry run opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def dry_run(tmp_path, *overrides):
    out = tmp_path / "dashboard.json"
    dashboard.dashboard(composed("task=dashboard", "dry_run=true", f"out={out}", *overrides))
    return json.loads(out.read_text())


def panels(content, section):
    (found,) = (s for s in content["spec"]["section"]["panelBankConfig"]["sections"] if s["name"] == section)
    return found["panels"]


def test_a_dry_run_writes_what_would_be_sent(tmp_path, no_network, capsys):
    content = dry_run(tmp_path, "entity=team", "project=mine", "title=Ours", "measured=[fid,agreement]")
    assert (content["entity"], content["project"], content["name"]) == ("team", "mine", "Ours")
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "dashboard.json")
    sections = content["spec"]["section"]["panelBankConfig"]["sections"]
    names = ["Loss", "Distance to real images", "Cost", "Samples of equal seeds", "What was chosen"]
    assert [s["name"] for s in sections] == names

    loss, validation, _ = panels(content, "Loss")
    assert (loss["config"]["metrics"], validation["config"]["metrics"]) == (["loss"], ["val_loss"])
    assert all(p["config"]["xAxis"] == "nimg" for p in panels(content, "Loss"))
    titles = [p["config"]["yAxisTitle"] for p in panels(content, "Distance to real images")[:2]]
    assert titles == ["fid (less is better)", "agreement (more is better)"]
    drawn = json.dumps(panels(content, "Cost"))
    assert all(f'["{cost}"]' in drawn for cost in COSTS)
    (grids,) = panels(content, "Samples of equal seeds")
    assert grids["viewType"] == "Media Browser"
    assert grids["config"]["mediaKeys"] == ["samples"]


def test_runs_are_grouped_by_what_they_log(tmp_path, no_network):
    """Key by key through W&B's own encoding: config.choices.conditioning is choices.value.conditioning."""
    content = dry_run(tmp_path, "group_by=[conditioning,rank]")
    (runs,) = content["spec"]["section"]["runSets"]
    keys = [(key["section"], key["name"]) for key in runs["grouping"]]
    assert keys == [("config", "choices.value.conditioning"), ("config", "choices.value.rank")]
    assert {name.rpartition(".")[2] for _, name in keys} <= {*choices(composed())}
    assert "jobType" in json.dumps(runs["filters"])


def test_w_and_bs_models_read_it_back(tmp_path, no_network):
    content = dry_run(tmp_path)
    spec = internal.WorkspaceViewspec.model_validate(content["spec"])
    view = internal.View(entity="e", project="p", display_name="d", name="n", id="i", spec=spec)
    again = ws.Workspace._from_model(view)
    assert again.runset_settings.groupby == [ws.Config("choices.conditioning")]
    assert again.settings.x_axis == "nimg"
    assert [len(s.panels) for s in again.sections] == [
        len(s.panels) for s in workspace("", "", "", [], MEASURED).sections
    ]


MEASURED = [*composed("task=dashboard").measured]


def test_the_models_refuse_what_is_none():
    with pytest.raises(ValueError, match="max_runs"):
        ws.WorkspaceSettings(max_runs=-1)


def test_a_choice_that_is_none():
    with pytest.raises(UserError, match=r"group_by=colour: .*conditioning, rank, seed"):
        dashboard.dashboard(composed("task=dashboard", "group_by=[colour]"))


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "lorafusion.tasks.dashboard_panels")
    for name in [n for n in sys.modules if n.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'lorafusion\[dashboard\]'"):
        dashboard.dashboard(composed("task=dashboard"))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Neither this machine's key nor its home directory."""
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    wandb.teardown()
    yield
    wandb.teardown()


def test_no_key_is_one_line(elsewhere, tmp_path):
    with pytest.raises(UserError, match=r"^the dashboard was not saved: there is no key .*dry_run=true"):
        dashboard.dashboard(composed("task=dashboard", f"out={tmp_path}/d.json"))
    assert "WANDB_SILENT" not in os.environ


def test_no_network_is_one_line(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        with pytest.raises(UserError, match=f"^the dashboard was not saved: {url} does not answer"):
            dashboard.dashboard(composed("task=dashboard", f"out={tmp_path}/d.json"))


def test_a_refusal_is_one_line_and_a_saved_one_says_where(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("lorafusion.logger.wandb_start.obstacle", lambda patience_s: None)
    saved = []

    def save(view):
        saved.append(view)
        return SimpleNamespace(url="https://there")

    monkeypatch.setattr(ws.Workspace, "save", save)
    cfg = composed("task=dashboard", "entity=team", f"out={tmp_path}/d.json")
    dashboard.dashboard(cfg)
    assert capsys.readouterr().out == "https://there\n"
    assert (saved[0].entity, saved[0].project) == ("team", "lorafusion")

    def refuse(view):
        raise RuntimeError("permission denied\nsecond line")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    with pytest.raises(UserError, match=r"^the dashboard was not saved to team/lorafusion: permission denied$"):
        dashboard.dashboard(cfg)

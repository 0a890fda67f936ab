"""What a run's folder says about the run, however it ended: by itself, by an error, by a signal, by a kill, resumed."""

import json
import signal
from datetime import datetime

import pytest
import torch

from lorafusion.errors import UserError
from lorafusion.tasks import profile, run_folder
from lorafusion.tasks.status import Status, one_line, read, was_stopped
from tests.tasks.runs import composed, finish, losses, run, signal_at, tiny

LONG = ("images=64000", "callbacks.checkpoint.every_images=1000000")


def test_a_run_that_finishes_is_measured_once_and_a_refused_one_changes_nothing(tmp_path):
    overrides = tiny(tmp_path / "a", "images=80", "data.num_workers=1")  # a worker that ends is not the run that ends
    assert finish(overrides) == 0
    status = read(tmp_path / "a")
    started, ended = (datetime.fromisoformat(status.pop(k)) for k in ("started", "ended"))
    assert ended >= started
    assert started.tzinfo is not None
    assert 0 < status.pop("seconds") < 100
    assert status == {"state": "finished", "error": None, "images_seen": 80, "images": 80, "objective": None}

    sizes = json.loads((tmp_path / "a" / "model.json").read_text())
    parts = profile.by_part(composed(*overrides))
    assert sizes["parameters"] == sum(p.parameters for p in parts.values()) > 0
    assert sizes["macs_per_image"] == sum(p.macs for p in parts.values()) > 0
    assert {*sizes["parts"]} == {*profile.PARTS}

    before = {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir() if f.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        run((*overrides, "seed=5"))
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir() if f.is_file()} == before


def test_stopped_then_resumed_it_keeps_its_start_and_adds_up_its_seconds(tmp_path):
    overrides = tiny(tmp_path / "a", "images=640", "callbacks.checkpoint.every_images=1000000")
    assert signal_at(overrides, 3, signal.SIGTERM) == 143
    stopped = read(tmp_path / "a")
    assert (stopped["state"], stopped["error"], stopped["images"]) == ("stopped", "SIGTERM", 640)
    assert 0 < stopped["images_seen"] < 640
    with Status(tmp_path / "a", 640, goes_on=True, write=False) as status:
        assert status.seconds == stopped["seconds"]
    assert finish((*overrides, "resume=auto")) == 0
    finished = read(tmp_path / "a")
    assert (finished["state"], finished["error"], finished["images_seen"]) == ("finished", None, 640)
    assert finished["started"] == stopped["started"]
    assert finished["seconds"] > stopped["seconds"]


def test_killed_it_stays_running_and_nobody_holds_its_lock(tmp_path):
    overrides = tiny(tmp_path / "a", *LONG)
    assert signal_at(overrides, 3) == -signal.SIGKILL
    assert read(tmp_path / "a")["state"] == "running"
    assert read(tmp_path / "a")["ended"] is None
    run_folder.locked(tmp_path / "a", "paths.run_dir").close()


def test_interrupted_it_is_stopped(tmp_path):
    assert signal_at(tiny(tmp_path / "a", *LONG), 3, signal.SIGINT) == 1
    assert (read(tmp_path / "a")["state"], read(tmp_path / "a")["error"]) == ("stopped", "interrupted")


def test_without_the_checkpoint_callback_lightning_hears_the_signal(tmp_path):
    signal_at(tiny(tmp_path / "a", "images=64000", callbacks=()), 3, signal.SIGTERM)
    assert read(tmp_path / "a")["state"] == "stopped"


def test_an_error_is_said_in_one_line(tmp_path):
    overrides = tiny(tmp_path / "a", "images=64000", "data.filter=none")
    assert finish(overrides) == 1
    status = read(tmp_path / "a")
    assert status["state"] == "failed"
    assert "none" in status["error"]
    assert "\n" not in status["error"]
    assert status["ended"] is not None
    assert losses(tmp_path / "a") == {}


def test_a_long_run_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("lorafusion.tasks.status.EVERY_S", 0.0)
    status = Status(tmp_path, 100, goes_on=False).__enter__()
    status.on_train_batch_end(None, Seen())
    assert read(tmp_path) | {"started": 0, "seconds": 0} == {
        **{"state": "running", "error": None, "started": 0, "ended": None},
        **{"seconds": 0, "images_seen": 32, "images": 100, "objective": None},
    }


class Seen:
    images_seen = 32


def test_which_errors_are_stops():
    interrupted = SystemExit(1)
    interrupted.__context__ = KeyboardInterrupt()
    assert was_stopped(KeyboardInterrupt())
    assert was_stopped(interrupted)
    assert not was_stopped(SystemExit(1))
    assert not was_stopped(ValueError())
    assert one_line(UserError("a\nb")) == "a b"
    assert one_line(ValueError("c")) == "ValueError: c"
    assert one_line(ValueError()) == "ValueError"


def test_other_processes_of_a_distributed_run_write_nothing(tmp_path):
    with Status(tmp_path, 100, goes_on=False, write=False):
        pass
    assert not [*tmp_path.iterdir()]
    assert read(tmp_path) == {}


def test_measuring_the_network_draws_no_random_number(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    profile.write_size(composed("backbone=nano", "data.resolution=16"), tmp_path / "model.json")
    assert torch.equal(torch.get_rng_state(), before)
    assert (tmp_path / "model.json").is_file()


def test_a_network_that_cannot_be_measured_stops_nobody(tmp_path, capsys):
    profile.write_size(composed("data.resolution=9"), tmp_path / "model.json")
    assert not (tmp_path / "model.json").exists()
    assert "model.json is not written" in capsys.readouterr().out

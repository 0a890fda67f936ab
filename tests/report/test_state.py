"""What became of a run, with and without its status.json."""

import fcntl
import multiprocessing

import pytest

from lorafusion.report.state import is_locked, state_of


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_what_it_says(tmp_path, state):
    found = state_of(tmp_path, {"state": state, "error": "a\nb", "seconds": 3.5}, 5, 10)
    assert (found.name, found.error, found.seconds) == (state, "a b", 3.5)


def test_without_a_status_the_images_tell(tmp_path):
    assert state_of(tmp_path, {}, 100, 100).name == "finished"
    assert state_of(tmp_path, {}, 99, 100).name == "unfinished"
    assert state_of(tmp_path, {}, 99, None).name == "unfinished"


def hold(lock, ready, done):
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        ready.set()
        done.wait(30)


def test_running_is_killed_unless_somebody_holds_the_lock(tmp_path):
    lock = tmp_path / ".lock"
    assert state_of(tmp_path, {"state": "running"}, 5, 10).name == "killed"
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(lock, ready, done))
    process.start()
    assert ready.wait(30)
    assert is_locked(lock)
    assert state_of(tmp_path, {"state": "running"}, 5, 10).name == "running"
    assert state_of(tmp_path, {}, 5, 10).name == "running"
    done.set()
    process.join(30)
    assert not is_locked(lock)
    assert state_of(tmp_path, {"state": "running"}, 5, 10).name == "killed"


def test_what_is_no_number_is_no_time(tmp_path):
    assert state_of(tmp_path, {"state": "finished", "seconds": "soon"}, 5, 10).seconds is None
    assert state_of(tmp_path, {"state": ["odd"], "seconds": True}, 5, 10).name == "unfinished"

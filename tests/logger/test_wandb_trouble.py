"""When W&B is in trouble, training goes on to the same weights, and one line says what happened."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lorafusion import checkpoint
from lorafusion.logger import INTERRUPTED, closing, wandb_start
from lorafusion.logger.published import published
from lorafusion.logger.wandb import WandB, wandb_logger
from tests.logger.wandb_files import read_runs
from tests.tasks.runs import last_step, losses, run, tiny

KEY = "5ec4e7" * 7  # no key of anybody's
LENGTH = ("images=320", "logger=[csv,wandb]", "callbacks=[ema,checkpoint]")


def body(overrides: tuple[str, ...], environment: dict[str, str], out: Path) -> None:
    """Of a run's process."""
    os.environ.update(environment)
    sys.stdout = sys.stderr = out.open("a", buffering=1)
    run(overrides)


def started(folder: Path, *overrides: str, **environment: str):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    out = folder.parent / f"{folder.name}.log"
    given = {"HOME": str(folder.parent / "home"), "WANDB_API_KEY": KEY, **environment}
    process = context.Process(target=body, args=(tiny(folder, *LENGTH, *overrides), given, out))
    process.start()
    return process, out


def finished(folder: Path, *overrides: str, **environment: str) -> tuple[int | None, list[str]]:
    """The exit code, and what was said of W&B."""
    process, out = started(folder, *overrides, **environment)
    process.join(120)
    return process.exitcode, said(out)


def said(out: Path) -> list[str]:
    return [line for line in out.read_text().splitlines() if "W&B" in line or line.startswith("wandb")]


def final(folder: Path) -> dict:
    return checkpoint.load(checkpoint.newest(folder / "checkpoints"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The last checkpoint of the same training without W&B."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finished(folder, "logger=[csv]") == (0, [])
    return folder


def same_training(folder: Path, undisturbed: Path) -> None:
    a, b = final(folder), final(undisturbed)
    assert a["images_seen"] == b["images_seen"] == 320
    assert all(torch.equal(a["state_dict"][k], b["state_dict"][k]) for k in b["state_dict"])
    assert all(torch.equal(a["ema"][k], b["ema"][k]) for k in b["ema"])
    assert losses(folder) == losses(undisturbed)


def no_secret(folder: Path) -> None:
    for file in folder.parent.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file
    assert not (folder.parent / "home").exists()


def test_unreachable_stopped_and_resumed(tmp_path, undisturbed):
    """No server there: offline. SIGTERM: a failed run. resume=auto: the same W&B run, which then ends well."""
    folder = tmp_path / "run"
    with socket.socket() as free:  # a port that nobody listens to, as long as it is ours
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        process, out = started(folder, WANDB_BASE_URL=url)
        until = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < until and last_step(folder) < 3:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGTERM)
        process.join(120)
        assert process.exitcode == 128 + signal.SIGTERM
        (line,) = said(out)
        assert line.startswith(f"W&B: offline: {url} does not answer; `wandb sync ")
        assert finished(folder, "resume=auto", WANDB_BASE_URL=url)[0] == 0
    stopped, resumed = read_runs(folder)
    assert (stopped.exit_code, resumed.exit_code) == (128 + signal.SIGTERM, 0)
    assert stopped.run["run_id"] == resumed.run["run_id"]
    assert stopped.run["resume"]
    assert resumed.run["resume"]
    both = [row["nimg"] for row in (*stopped.logged("loss"), *resumed.logged("loss"))]
    assert both == [16 * (k + 1) for k in range(20)]
    same_training(folder, undisturbed)
    no_secret(folder)


class Refuses(BaseHTTPRequestHandler):
    """A server that knows no key."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"errors": [{"message": "user is not logged in"}]}).encode())

    do_POST = do_GET

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serving(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_wrong_key(tmp_path, undisturbed):
    folder = tmp_path / "run"
    with serving(Refuses) as url:
        code, lines = finished(folder, WANDB_BASE_URL=url)
    assert code == 0
    assert len(lines) == 1
    assert lines[0].startswith("W&B: offline: the server refuses the key (")
    assert "/graphql" in Refuses.asked  # it was W&B that was refused, not our question whether it is there
    same_training(folder, undisturbed)
    (recorded,) = read_runs(folder)  # nothing is left of the one that was refused
    assert recorded.exit_code == 0
    assert len(recorded.logged("loss")) == 20
    no_secret(folder)


def test_a_folder_that_cannot_be_written(tmp_path, undisturbed):
    """As on a full disk: the error is the system's own. What is there is no folder, which stops root too."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "wandb").write_text("in the way")
    code, lines = finished(folder, "logger.wandb.mode=offline")
    assert code == 0
    assert len(lines) == 1
    assert lines[0].endswith("; this run goes on without it")
    same_training(folder, undisturbed)


class Full:
    """A run on a disk that fills up at the second row."""

    def __init__(self, fails=("log",)):
        self.rows, self.summary, self.fails = [], {}, fails

    def log(self, row):
        self.rows.append(row)
        if "log" in self.fails and len(self.rows) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish(self, exit_code):
        raise ConnectionResetError("Connection lost")


def test_a_disk_that_fills_up_while_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wandb.teardown", lambda: None)
    logger = WandB(str(tmp_path))
    logger.run = run = Full()
    for step in range(4):
        logger.log_metrics({"loss": 1.0, "nimg": 16.0}, step)
    logger.close(0)
    assert len(run.rows) == 2
    assert capsys.readouterr().out == "W&B: [Errno 28] No space left on device; this run goes on without it\n"


def test_a_service_that_is_gone_at_the_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wandb.teardown", lambda: None)
    logger = WandB(str(tmp_path))
    logger.run = Full(fails=())
    logger.close(0)
    assert capsys.readouterr().out == "W&B: Connection lost; this run goes on without it\n"
    assert logger.run is None


def test_the_start_takes_no_longer_than_it_may(monkeypatch, tmp_path):
    """By a clock of its own: what is left of five seconds after the question goes to W&B, never more."""
    clock, asked = [100.0], []

    def obstacle(patience_s):
        asked.append(("question", patience_s))
        clock[0] += patience_s
        return None

    def init(*, mode, settings, **_):
        asked.append((mode, settings.init_timeout))
        clock[0] += settings.init_timeout
        if mode == "online":
            raise RuntimeError("timed out\nadvice to programmers")
        return SimpleNamespace()

    monkeypatch.setattr(wandb_start, "obstacle", obstacle)
    monkeypatch.setattr(wandb_start, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("wandb.teardown", lambda: None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_start.start(tmp_path, None, 5.0, upload_s=1.0)[1] == "timed out"
    (_, question), (online, init_s), (offline, _) = asked
    assert (online, offline) == ("online", "offline")
    assert question + init_s == 5.0


def test_a_server_that_never_answers_is_not_there():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not wandb_start.answers(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2)
    with serving(Refuses) as url:
        assert wandb_start.answers(url, 30)  # whatever it says


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 7), (ValueError(), 1), (SystemExit(2), 2), (SystemExit(), 0), (KeyboardInterrupt(), INTERRUPTED)],
    ids=repr,
)
def test_loggers_learn_how_a_job_ended(error, code):
    heard = []
    logger = SimpleNamespace(close=heard.append)
    expected = pytest.raises(type(error)) if error else nullcontext()
    with expected, closing([object(), logger], lambda: 7):
        if error:
            raise error
    assert heard == [code]


def test_lightnings_exit_after_ctrl_c_is_an_interruption():
    heard = []

    def lightning():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit), closing([SimpleNamespace(close=heard.append)], lambda: 0):
        lightning()
    assert heard == [INTERRUPTED]


def test_the_environment_is_left_as_it_was(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CACHE_DIR", "mine")
    with wandb_start.environment(tmp_path):
        assert os.environ["WANDB_CACHE_DIR"] == "mine"  # the user's choice
        assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "wandb" / "data")
        assert os.environ["WANDB_ERROR_REPORTING"] == "false"  # else an offline run calls home
        os.environ["WANDB_MODE"] = "dryrun"  # as Lightning's logger does
        os.environ["WANDB_CACHE_DIR"] = "another"
    assert {n: v for n, v in os.environ.items() if n.startswith("WANDB_")} == {"WANDB_CACHE_DIR": "mine"}


def test_what_is_published_holds_no_secret_and_no_home(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    config = {
        "data": {"path": "/home/somebody/images", "hub_token": "hf_1", "token": None},
        "list": [{"API_KEY": "k"}, "/home/somebody"],
        "rank": 4,
    }
    assert published(config) == {
        "data": {"path": "~/images", "hub_token": "(hidden)", "token": None},
        "list": [{"API_KEY": "(hidden)"}, "~"],
        "rank": 4,
    }


def test_configs_of_earlier_versions_still_name_it():
    assert wandb_logger is WandB

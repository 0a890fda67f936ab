"""How a Weights & Biases run is opened: online where that works within a few seconds, else offline, else not at all.

Everything W&B writes stays in the run's folder, and of what it reads from the environment nothing stays changed: the
next job of a sweep finds it as this one did.
"""

import os
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb


@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """W&B's settings that it reads from the environment alone; what the user has set there wins.

    Error reporting is off: with it even an offline run calls W&B's servers.
    """
    ours = {
        "WANDB_DATA_DIR": str(folder / "wandb" / "data"),  # artifacts and tables; else in the home directory
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),  # its service's logs too
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",  # what is worth a line is said here
    }
    before = {**os.environ}
    os.environ.update({name: value for name, value in ours.items() if name not in before})
    try:
        yield
    finally:
        for name in [n for n in os.environ if n.startswith("WANDB_") and n != "WANDB_SERVICE"]:
            if name not in before:
                del os.environ[name]
        os.environ.update({n: v for n, v in before.items() if n.startswith("WANDB_")})


def start(folder: Path, mode: str | None, patience_s: float, **settings: Any) -> tuple[Any, str | None]:
    """The open run, and why it is offline although nobody asked for that. Raises what W&B raises if offline fails too.

    mode:  online, offline, disabled; None = WANDB_MODE, else online.
    """
    asked = mode or os.environ.get("WANDB_MODE") or "online"
    if asked in ("offline", "dryrun", "disabled"):
        return _init(folder, "disabled" if asked == "disabled" else "offline", patience_s, settings), None
    until = time.monotonic() + patience_s
    if reason := obstacle(patience_s / 2):
        return _init(folder, "offline", patience_s, settings), reason
    before = _online(folder)
    try:
        return _init(folder, "online", max(until - time.monotonic(), 1.0), settings), None
    except Exception as error:  # a wrong key, a project that is not ours, a server that fails
        reset()  # its service believes that the run is open, or is gone itself
        for failed in _online(folder) - before:
            shutil.rmtree(failed, ignore_errors=True)
        return _init(folder, "offline", patience_s, settings), one_line(error)


def _online(folder: Path) -> set[Path]:
    return {*(folder / "wandb").glob("run-*")}


def reset() -> None:
    """End W&B's service; the next run starts another."""
    try:
        wandb.teardown()
    except Exception as gone:  # so it had ended already
        del gone


def _init(folder: Path, mode: str, patience_s: float, settings: Mapping[str, Any]) -> Any:
    own = wandb.Settings(silent=True, init_timeout=patience_s, finish_timeout=settings["upload_s"])
    arguments = {name: value for name, value in settings.items() if name != "upload_s"}
    return wandb.init(dir=str(folder), mode=mode, settings=own, reinit="finish_previous", **arguments)  # pyright: ignore[reportArgumentType]


def obstacle(patience_s: float) -> str | None:
    """Why no run can be sent to W&B, found without sending anything of it; None if nothing stands in the way."""
    try:
        if not wandb.login(prompt=False, verify=False):
            return "there is no key (`wandb login` stores one)"
    except Exception as error:  # a key that cannot be one
        return one_line(error)
    url = wandb.setup().settings.base_url
    return None if answers(url, patience_s) else f"{url} does not answer"


def answers(url: str, patience_s: float) -> bool:
    """Whether a server is there, whatever it says. In a thread, for looking a name up knows no time limit."""
    found: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=patience_s).close()
            found.append(True)
        except urllib.error.HTTPError:
            found.append(True)
        except (OSError, ValueError) as error:
            found.append(isinstance(getattr(error, "reason", None), ssl.SSLError))  # W&B may know its certificate

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience_s)
    return found == [True]


def one_line(error: BaseException) -> str:
    """The first line of what W&B says; its other lines advise programmers."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0].strip()
    if re.search(r"\b401\b|not logged in|unauthori[sz]ed", said, re.IGNORECASE):
        return "the server refuses the key (`wandb login --relogin` stores another)"
    return said

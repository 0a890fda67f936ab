"""The bar appears only where the work takes long, and ends with it."""

import io
import re
import time

import pytest
from rich.console import Console

from lorafusion.progress import bar, counted


def slow(n: int):
    for k in range(n):
        time.sleep(0.06)
        yield k


def screen(terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def shown(console: Console) -> str:
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", console.file.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_it_says_how_many_and_how_fast(terminal):
    console = screen(terminal)
    with bar("decoding", "images", delay=0.1, every=0.0, console=console) as report:
        assert list(counted(slow(8), 8, report)) == list(range(8))
    said = shown(console)
    assert "decoding" in said
    assert ("8/8" if terminal else "8 of 8 images") in said
    (*_, rate) = re.findall(r"(\d+) images/s" if terminal else r"images, (\d+)/s", said)
    assert 5 <= int(rate) <= 17  # at most one in 0.06 s


def test_a_log_file_gets_a_line_now_and_then():
    console = screen(terminal=False)
    with bar("sampling", "evaluations", delay=0.1, every=0.2, console=console) as report:
        for _ in counted(slow(12), 12, report):
            pass
    lines = shown(console).splitlines()
    assert 2 <= len(lines) <= 4
    assert all(re.fullmatch(r"sampling: \d+ of 12 evaluations, \d+/s, \d+ s left", line) for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_short_work_shows_nothing(terminal):
    console = screen(terminal)
    with bar("decoding", "images", console=console) as report:
        assert list(counted(slow(4), 4, report)) == list(range(4))
    assert shown(console) == ""


def test_work_that_goes_on_is_not_credited_with_what_was_done_before():
    console = screen(terminal=False)
    with bar("decoding", "images", delay=0.1, every=0.0, console=console) as report:
        for done in range(1_000_000, 1_000_005):
            time.sleep(0.06)
            report(done, 2_000_000)
    assert all(int(rate) <= 17 for rate in re.findall(r"(\d+)/s", shown(console)))


def test_the_bar_ends_with_the_work_that_fails():
    console = screen()

    def fail():
        with bar("decoding", "images", delay=0.1, console=console) as report:
            for k in counted(slow(8), 8, report):
                if k == 5:
                    raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    said = console.file.getvalue()
    assert "decoding" in said
    assert "8/8" not in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is back


def test_it_goes_to_stderr(capsys):
    with bar("decoding", "images", delay=0.0) as report:
        report(0, 2)
        report(1, 2)
    said = capsys.readouterr()
    assert "decoding: 1 of 2 images" in said.err
    assert said.out == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_said_of_the_rate_before_there_is_one(terminal):
    """Where the first item is slow to come, its report tells nothing of those that follow."""
    console = screen(terminal)
    with bar("decoding", "images", delay=0.0, every=0.0, console=console) as report:
        report(1, 3)
        assert shown(console) == ""
        report(2, 3)
    assert "2" in shown(console)

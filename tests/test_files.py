import os
import signal
import subprocess
import sys

import pytest

from lorafusion.files import replacing, write_text


def test_the_file_is_replaced_when_the_block_ends_well(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    write_text(path, "one")
    with replacing(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_what_was_there_stays_when_the_block_fails(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "one")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("tw")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_before_it_writes_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="early"), replacing(tmp_path / "a.txt"):
        raise RuntimeError("early")
    assert not list(tmp_path.iterdir())


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys; from pathlib import Path; from lorafusion.files import replacing\n"
            "with replacing(Path(sys.argv[1])) as t:\n"
            "    t.write_text('tw'); os.kill(os.getpid(), signal.SIGKILL)",
            str(path),
        ],
        env={**os.environ},
    )
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "one"

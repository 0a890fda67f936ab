"""Checkpoints survive a kill while they are written, and an altered one is refused."""

import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from lorafusion import checkpoint
from lorafusion.errors import UserError

CONTENT = {"state": {"w": torch.arange(3000.0).reshape(30, 100)}, "step": 7, "name": "x", "none": None}


def test_round_trip_is_exact_and_torch_reads_it_too(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint.save(CONTENT, path)
    for loaded in (checkpoint.load(path), torch.load(path, weights_only=True)):
        assert torch.equal(loaded["state"]["w"], CONTENT["state"]["w"])
        assert {k: loaded[k] for k in ("step", "name", "none")} == {"step": 7, "name": "x", "none": None}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_100_bit_flips_and_cuts_are_refused_by_name(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint.save(CONTENT, path)
    good = path.read_bytes()
    chance = random.Random(0)
    for _ in range(100):
        bad = bytearray(good)
        bit = chance.randrange(len(bad) * 8)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"a\.ckpt"):
            checkpoint.load(path)
    for _ in range(20):
        path.write_bytes(good[: chance.randrange(len(good))])
        with pytest.raises(UserError, match=r"a\.ckpt"):
            checkpoint.load(path)


def test_newest_takes_the_one_before_a_bad_one_and_says_so_in_one_line(tmp_path):
    for images in (100, 200, 300):
        checkpoint.save(CONTENT, tmp_path / f"{images:012d}.ckpt")
    bad = tmp_path / f"{300:012d}.ckpt"
    bad.write_bytes(bad.read_bytes()[:-100])
    said = []
    assert checkpoint.newest(tmp_path, said.append) == tmp_path / f"{200:012d}.ckpt"
    assert len(said) == 1
    assert str(bad) in said[0]
    assert "\n" not in said[0]


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "a.ckpt"
    checkpoint.save({"x": Hostile()}, path)  # a well-formed file of ours, with a hostile content
    with pytest.raises(UserError, match=r"a\.ckpt"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match=r"a\.ckpt"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    checkpoint.save(CONTENT, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.save({"other": 1}, path)
    monkeypatch.undo()
    assert checkpoint.load(path)["step"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def _another_file_system(tmp_path: Path) -> Path:
    """A folder that is not on the file system of the default temporary folder, where there is one."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and memory.stat().st_dev != Path("/tmp").stat().st_dev:
        return memory / f"lorafusion-test-{os.getpid()}"
    return tmp_path / "checkpoints"


def test_20_kills_while_saving_lose_nothing(tmp_path):
    """A process saves without a pause and is killed at a random moment; the last good one loads, every time."""
    folder = _another_file_system(tmp_path)
    folder.mkdir(exist_ok=True)
    program = textwrap.dedent("""
        import os, sys, torch
        from pathlib import Path
        from lorafusion import checkpoint
        folder = Path(sys.argv[1])
        weights = torch.randn(500_000)
        for line in sys.stdin:  # one line = one trial; the child is killed from outside
            if (child := os.fork()) == 0:
                for step in range(10**6):
                    checkpoint.save({"step": step, "w": weights}, folder / f"{step % 3:012d}.ckpt")
            print(child, flush=True)
            os.waitpid(child, 0)
            print("dead", flush=True)
    """)
    chance = random.Random(0)
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        torn = 0
        for _ in range(20):
            server.stdin.write("go\n")
            server.stdin.flush()
            child = int(server.stdout.readline())
            time.sleep(0.05 + 0.1 * chance.random())
            os.kill(child, signal.SIGKILL)
            assert server.stdout.readline() == "dead\n"
            torn += len(list(folder.glob(".*.tmp")))
            assert len(list(folder.glob(".*.tmp"))) <= 1
            kept = checkpoint.list_checkpoints(folder)
            assert kept
            for path in kept:
                checkpoint.load(path)
            checkpoint.remove_stale(folder)
            assert not list(folder.glob(".*"))
        assert torn > 0, "no kill fell into a save, so nothing was tested"
    finally:
        server.kill()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

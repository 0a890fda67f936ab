"""Jobs of a sweep that run at once: each has its number, and its cards."""

import os
import subprocess
import sys
from pathlib import Path

from lorafusion.cli import workers

ROOT = Path(__file__).parents[2]


def test_each_worker_has_its_cards():
    four = ["0", "1", "2", "3"]
    assert [workers.cards_of(k, 2, four) for k in range(2)] == [["0", "2"], ["1", "3"]]
    assert [workers.cards_of(k, 4, four) for k in range(4)] == [["0"], ["1"], ["2"], ["3"]]
    assert [workers.cards_of(k, 3, ["0", "1"]) for k in range(3)] == [["0"], ["1"], ["0"]]
    assert workers.cards_of(0, 2, []) == []


def test_which_cards_there_are(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
    assert workers.cards() == ["GPU-1", "GPU-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers.cards() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    files = [Path(f"/dev/{name}") for name in ("nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: files)
    assert workers.cards() == ["0", "1"]


def test_numbers_of_workers_are_taken_and_given_back(tmp_path):
    program = "import sys, pathlib; from lorafusion.cli import workers; w = pathlib.Path(sys.argv[1])\n"
    program += "print(workers._number(w, 2), flush=True); input()"
    start = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    }
    first, second = (subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], **start) for _ in range(2))
    assert {first.stdout.readline(), second.stdout.readline()} == {"0\n", "1\n"}
    for process in (first, second):
        process.communicate("\n")
    third = subprocess.run([sys.executable, "-c", program, str(tmp_path)], input="\n", capture_output=True, text=True)
    assert third.stdout == "0\n"

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lorafusion.cli import check
from lorafusion.cli.help import help_text
from lorafusion.cli.mistake import Mistake
from lorafusion.cli.registry import Registry

ROOT = Path(__file__).parents[2]
HELP = help_text(ROOT / "conf", [])
EXAMPLES = [
    re.split(r"  |\s(?=two strategies)", line)[0] for line in re.findall(r"^  python run\.py (.*)$", HELP, re.MULTILINE)
]


def test_names_every_option_of_every_group():
    options = {option for options in Registry(ROOT / "conf").groups.values() for option in options}
    assert options <= {*re.split(r"[\s*=]+", HELP)}


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not e.startswith(("--", "[")) and "[...]" not in e])
def test_every_example_works(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    check.check(shlex.split(example), ROOT / "conf")


def test_there_are_examples():
    assert sum(not example.startswith("-") for example in EXAMPLES) >= 8


def test_about_one_option():
    said = help_text(ROOT / "conf", ["sampler=heun"])
    assert (ROOT / "conf/sampler/heun.yaml").read_text().splitlines()[-1] in said
    assert "2 * steps - 1 evaluations" in said  # the docstring of its class
    with pytest.raises(Mistake, match=r"did you mean sampler=heun\?"):
        help_text(ROOT / "conf", ["sampler=huen"])


def test_process_prints_it_without_torch(tmp_path):
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = code.replace("sys.argv[0]", repr(str(ROOT / "run.py")))
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules or 'lightning' in sys.modules)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout == f"{HELP}\nFalse\n"
    assert not done.stderr
    assert not [*tmp_path.iterdir()]

"""Every command of the README is checked as the command line checks it, then run at a toy size; so is its Python."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lorafusion.cli import check
from tests.tasks.runs import CONF, TINY, finish, tiny

README = (CONF.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[2:]
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("python run.py")
]
SWEEPS = [c for c in COMMANDS if "-m" in c]
TRAINING = [c for c in COMMANDS if not any(a.startswith("task=") for a in c) and "--help" not in c and c not in SWEEPS]
TOY = ("debug=fast", "data.batch_size=8", "images=16")


def test_there_are_commands_of_every_kind():
    asked = {a for command in COMMANDS for a in command}
    assert {"task=sample", "task=evaluate", "task=profile", "--help"} <= asked
    assert len(TRAINING) >= 4
    assert len(SWEEPS) >= 2


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder that has what the README's commands speak of: runs, and pictures."""
    folder = tmp_path_factory.mktemp("readme")
    assert finish(tiny(folder / "outputs" / "demo", "images=32", "process=edm", "sampler=heun", "sampler.steps=2")) == 0
    assert finish(tiny(folder / "outputs" / "discrete", "images=32")) == 0
    (convert,) = [c for c in COMMANDS if "task=convert" in c]
    assert finish(tuple(at_home(convert, folder))) == 0
    (folder / "outputs" / "sweep").mkdir()
    for k in range(8):
        (folder / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (k * 20, 0, 0)).save(folder / "pictures" / f"{k}.png")
    return folder


def at_home(command: list[str], there: Path) -> list[str]:
    moved = [a.replace("~/", f"{there}/").replace("=outputs/", f"={there}/outputs/") for a in command]
    return [*moved, f"paths.data_dir={there / 'data'}"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_line_accepts_it(command, there):
    if "--help" not in command:
        check.check(at_home(command, there), CONF)


@pytest.mark.parametrize("command", TRAINING, ids=" ".join)
def test_it_trains(command, there):
    settings = at_home(command, there)
    if not any(a.startswith("data=") for a in command) and not any("demo" in a for a in command):
        settings += ["data=synthetic", "data.channels=1"]  # the experiment's own is downloaded
    if not any(a.startswith("paths.run_dir=") for a in command):
        settings.append(f"paths.run_dir={there / 'runs' / str(TRAINING.index(command))}")
    if "resume=auto" in command:
        settings = [a.replace("outputs/demo", "outputs/new") for a in settings]
        settings.append("denoiser.schedule.rampup_images=0")  # the demo's is longer than 16 images
    assert finish((*settings, *TOY)) == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if "task=sample" in c], ids=" ".join)
def test_it_samples(command, there):
    sampler = () if "sampler=ddim" in command else ("sampler=ddim",)
    settings = (*at_home(command, there), *sampler, "sampler.steps=2", f"out={there / 'out'}")
    assert finish(settings) == 0
    assert (there / "out" / "grid.png").is_file()


@pytest.mark.parametrize("command", [c for c in COMMANDS if "metric=fid" in c], ids=" ".join)
def test_it_measures(command, there):
    settings = [a for a in at_home(command, there) if not a.startswith("n=")]
    assert finish((*settings, "n=8", "sampler=ddim", "sampler.steps=2", "metric.extractor.min_accuracy=0")) == 0
    assert [*(there / "outputs" / "demo" / "metrics").rglob("metrics.json")]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "task=analyze" in c], ids=" ".join)
def test_it_analyzes(command, there):
    assert finish((*at_home(command, there), "analysis.points=5")) == 0


@pytest.mark.parametrize("command", SWEEPS, ids=" ".join)
def test_it_sweeps(command, there):
    """Two seeds of what it sweeps otherwise."""
    swept = [a for a in at_home(command, there) if not a.startswith(("conditioning/", "seed="))]
    small = ["conditioning/conv=[shift]", "conditioning/attn=[uc_lora]", "seed=0,1", "hydra/launcher=basic", *TINY]
    small += ["images=32", "denoiser.schedule.rampup_images=16", "sampler.steps=2"]
    if "sweep=conditioning" in command:  # the report below reads it
        small += ["callbacks.metric.n=4", "metric.extractor.min_accuracy=0"]
    done = subprocess.run(
        [sys.executable, str(CONF.parent / "run.py"), *swept, *small], cwd=there, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 jobs: 2 finished" in done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if "task=report" in c], ids=" ".join)
def test_it_reports(command, there):
    runs = there / "outputs" / "sweep"
    if not any(runs.iterdir()):  # where the sweep was another worker's
        assert finish(tiny(runs / "0", "images=32")) == 0
    assert finish(tuple(at_home(command, there))) == 0
    assert "uc_lora" in (there / "outputs" / "report" / "report.html").read_text()


@pytest.mark.parametrize("command", [c for c in COMMANDS if "metric=bpd" in c], ids=" ".join)
def test_it_bounds(command, there):
    settings = [a if not a.startswith("n=") else "n=4" for a in at_home(command, there)]
    assert finish((*settings, "steps=3")) == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if "task=prepare" in c], ids=" ".join)
def test_it_prepares(command, there):
    assert finish(tuple(at_home(command, there))) == 0
    assert (there / "outputs" / "pictures.zip").is_file()


def test_the_python_runs(tmp_path):
    names = {}
    for program in (text for kind, text in BLOCKS if kind == "python"):
        (tmp_path / "program.py").write_text(program)
        names |= runpy.run_path(str(tmp_path / "program.py"))
    assert sum(p.numel() for p in names["net"].parameters()) > 437_532
    assert len(names["handle"].targets) == 64

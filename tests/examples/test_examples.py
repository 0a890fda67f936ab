"""Every example runs, at a toy size."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "examples"
TOY = {
    "diffusers_unet": ("--steps=2", "--samples=4", "--batch=4", "--width=32", "--out={out}"),
    "dit": ("--steps=2", "--out={out}"),
    "own_model": ("--steps=3",),
}
SAID = {
    "diffusers_unet": ("plain   loss, recognised", "drop-in loss, recognised", "mean of 1"),
    "dit": ("step 0: loss", "same output: True"),
    "own_model": ("plain: loss", "drop-in: loss"),
}


def test_all_are_here():
    assert TOY.keys() == {file.stem for file in FOLDER.glob("*.py")}


def test_the_page_on_drop_in_runs(tmp_path):
    page = (FOLDER.parent / "docs" / "dropin.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    names = runpy.run_path(str(tmp_path / "program.py"))
    optimized = {id(p) for group in names["optimizer"].param_groups for p in group["params"]}
    assert {id(p) for p in names["handle"].parameters()} <= optimized


@pytest.mark.slow
@pytest.mark.parametrize("name", TOY)
def test_it_runs(name, tmp_path):
    command = [sys.executable, str(FOLDER / f"{name}.py"), *(a.format(out=tmp_path / "out") for a in TOY[name])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for line in SAID[name]:
        assert line in done.stdout
    if name == "diffusers_unet":
        grids = [Image.open(tmp_path / "out" / f"{which}_0.png").size for which in ("plain", "drop-in")]
        assert grids[0] == grids[1] == (4 * 33, 4 * 33)

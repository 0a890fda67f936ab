"""Two processes compute what one computes: the global batch, its order and its noise do not depend on their number."""

import os
import subprocess
import sys

import pytest
import torch

from lorafusion import checkpoint
from tests.logger.wandb_files import read_runs
from tests.tasks.runs import CONF, finish, tiny


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ("images=80", "process=edm", "conditioning/attn=[]", "backbone.attn_resolutions=[]")
    settings = (*settings, "denoiser.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.1, fused: false}")
    overrides = [o for o in tiny(two, *settings, callbacks=("ema", "checkpoint")) if "uc_lora" not in o]
    offline = ["logger=[csv,wandb]", "logger.wandb.mode=offline"]
    distributed = [*offline, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    jobs = ["-m", "seed=0,1", f"hydra.sweep.dir={two}"]  # a sweep of two jobs, each of two processes
    shared = [o for o in overrides if not o.startswith("paths.run_dir=")]
    command = [sys.executable, str(CONF.parent / "run.py"), *jobs, *shared, *distributed]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (recorded,) = read_runs(two / "0")  # of both processes the first alone has a W&B run
    assert [row["nimg"] for row in recorded.logged("loss")] == [16, 32, 48, 64, 80]
    single = [o.replace(str(two), str(one)) for o in overrides]
    assert finish(tuple(single)) == 0
    a, b = (checkpoint.load(checkpoint.newest(folder / "checkpoints")) for folder in (one, two / "0"))
    other = checkpoint.load(checkpoint.newest(two / "1" / "checkpoints"))
    assert not all(torch.equal(weight, other["state_dict"][name]) for name, weight in a["state_dict"].items())
    assert a["images_seen"] == b["images_seen"] == other["images_seen"] == 80
    for name, weight in a["state_dict"].items():
        torch.testing.assert_close(weight, b["state_dict"][name], rtol=1e-5, atol=1e-6)
    for name, weight in a["ema"].items():
        torch.testing.assert_close(weight, b["ema"][name], rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "one", "two"]  # no stray folder of the second process

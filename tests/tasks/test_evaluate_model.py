"""task=evaluate metric=bpd: what it computes of a run, prints, writes and refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from lorafusion import checkpoint
from lorafusion.denoisers.base import in_its_dtype
from lorafusion.draws import Draws
from lorafusion.errors import UserError
from lorafusion.metrics.bpd import BitsPerDim
from lorafusion.processes.bound import Bound
from lorafusion.processes.edm import EDM
from lorafusion.processes.iddpm import IDDPM
from lorafusion.tasks import run_folder
from lorafusion.tasks.evaluate import evaluate
from lorafusion.tasks.evaluate_model import _BOUND, bound_of, chosen_images, measure
from tests.golden.reference import iddpm_net, reference
from tests.golden.test_iddpm import process
from tests.logger.wandb_files import read_runs
from tests.tasks.runs import composed, finish, tiny

T = 12
IDDPM_RUN = (
    *("process=iddpm", f"process.num_steps={T}", "denoiser=iddpm", "backbone=iddpm_32", "backbone.model_channels=8"),
    *("backbone.channel_mult=[1,1]", "backbone.num_blocks=1", "backbone.attn_resolutions=[4]", "backbone.heads=2"),
    *("conditioning/conv=[scale_shift]", "conditioning/attn=[time_lora]", "data.source.n_test=21"),
    *("backbone.num_classes=10", "images=64", "callbacks.ema.halflife_images=1000", "callbacks.ema.rampup=null"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of four steps, class-conditional."""
    folder = tmp_path_factory.mktemp("bpd") / "run"
    dropped = ("backbone.widths", "backbone.attn_resolutions=[2,4]", "conditioning.attn.uc_lora")
    settings = [o for o in tiny(folder) if not o.startswith(dropped)]
    assert finish((*settings, *IDDPM_RUN)) == 0
    return folder


def run(folder: Path, *overrides: str) -> None:
    data = f"paths.data_dir={folder.parent / 'data'}"
    evaluate(composed("task=evaluate", "metric=bpd", f"ckpt={folder}", data, "device=cpu", *overrides))


def entry(out: Path, name: str = "bpd") -> dict:
    return json.loads((out / "metrics.json").read_text())[name]


def rows(file: Path) -> dict[str, np.ndarray]:
    with file.open(newline="") as lines:
        read = list(csv.DictReader(lines))
    return {name: np.array([float(row[name]) for row in read]) for name in read[0]}


def restored(folder: Path, ema: bool = True):
    path = checkpoint.newest(folder / "checkpoints")
    cfg = run_folder.saved_config(path)
    data = instantiate(cfg.data, _convert_="all")
    return run_folder.restore(path, cfg, ema=ema), data


@pytest.mark.parametrize("ema", [True, False])
def test_a_run_from_the_command_line(folder, tmp_path, capsys, ema):
    out = tmp_path / "out"
    logged = ("logger=[csv,wandb]", "logger.wandb.mode=offline", "logger.wandb.group=mine") if ema else ()
    run(folder, "n=10", "batch_size=4", f"ema={str(ema).lower()}", f"out={out}", *logged)
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str(out)
    found, terms = entry(out), rows(out / "bpd.csv")
    for recorded in read_runs(out) if logged else ():
        assert (recorded.run["job_type"], recorded.run["run_group"], recorded.exit_code) == ("evaluate", "mine", 0)
        assert recorded.run["display_name"] == "synthetic_cond-iddpm-scale_shift-time_lora-r4-s0"
        assert recorded.config["choices"]["attn"] == "time_lora"
        (row,) = recorded.logged("bits_per_dim")
        assert (row["bits_per_dim"], row["nimg"]) == (found["bits_per_dim"], 64)
    assert len(read_runs(out)) == bool(logged)
    assert f"{found['bits_per_dim']:.4f} ± {found['error']:.4f}" in said
    assert "on 10 test images of synthetic at 8 px; 12 of 12 timesteps" in said
    assert (found["n"], found["split"], found["steps"], found["of"]) == (10, "test", T, T)
    assert len(found["checkpoint"].pop("sha256")) == len(found["dataset"]["sha256"]) == 64
    assert found["checkpoint"] == {"file": "000000000064.ckpt", "images_seen": 64, "ema": ema}
    assert "torch" in found["versions"]
    assert found["bits_per_dim"] == pytest.approx(found["prior"] + terms["vb"].sum(), rel=1e-12)
    assert terms["timestep"].tolist() == [*range(T)]
    with Image.open(out / "bpd.png") as picture:
        assert picture.size[0] > 400

    denoiser, data = restored(folder, ema)
    images, labels, index = chosen_images(data, "test", 10)
    x0 = torch.from_numpy(images).double() / 127.5 - 1
    draws = Draws(denoiser.seed + _BOUND, torch.from_numpy(index))
    expected = Bound(denoiser.process)(
        in_its_dtype(denoiser.net), x0, draws, denoiser.one_hot(torch.from_numpy(labels))
    )
    assert found["bits_per_dim"] == pytest.approx(expected.total.mean().item(), rel=1e-5)
    for name in ("vb", "mse", "x0_mse"):
        np.testing.assert_allclose(terms[name], getattr(expected.at_step, name).mean(0).numpy(), rtol=1e-4)


def test_all_of_the_test_split_beside_the_run(folder):
    run(folder)
    out = folder / "metrics" / "000000000064"
    assert sorted(p.name for p in out.iterdir()) == ["bpd.csv", "bpd.png", "metrics.json"]
    assert entry(out)["n"] == 21
    run(folder, "split=train", "n=5", "steps=3")  # of the same checkpoint: both stay
    assert (entry(out)["n"], entry(out, "bpd_train")["n"], entry(out, "bpd_train")["steps"]) == (21, 5, 3)
    assert rows(out / "bpd_train.csv")["timestep"].tolist() == [0, 6, 11]
    run(folder, "n=2", "ema=false")  # others: they go
    assert {*json.loads((out / "metrics.json").read_text())} == {"bpd"}


def measured(folder: Path, n: int, batch_size: int, chosen=None):
    denoiser, data = restored(folder)
    images, labels, index = chosen_images(data, "test", None)
    keep = slice(n) if chosen is None else chosen
    metric = BitsPerDim()
    measure(metric, Bound(denoiser.process), denoiser, images[keep], labels[keep], index[keep], batch_size)
    return metric


def test_an_images_number_does_not_depend_on_its_neighbours(folder):
    """To the bit at one batch size, padded or not; to a network's rounding at another, so the noise is the same."""
    whole, some = (np.concatenate(measured(folder, n, 8)._totals) for n in (16, 5))
    assert np.array_equal(whole[:5], some)
    reverse = np.concatenate(measured(folder, 16, 8, np.arange(16)[::-1])._totals)
    np.testing.assert_allclose(reverse[::-1], whole, rtol=1e-5)
    for batch_size in (1, 3, 64):
        np.testing.assert_allclose(np.concatenate(measured(folder, 16, batch_size)._totals), whole, rtol=1e-5)
    other = np.concatenate(measured(folder, 16, 8, np.roll(np.arange(16), 1))._totals)
    assert abs(other - whole).min() > 1e-3  # which image it is does matter


def test_the_terms_are_the_references():
    """At the timesteps that were recorded, with the recorded noise and network; the others are passed over."""
    ref = reference("iddpm_cond")
    net, at = iddpm_net(ref), ref["t"].tolist()
    label = torch.nn.functional.one_hot(ref["y"], ref.config["num_classes"]).double()

    def only_there(x, noise, step, label, augment):
        return net(x, noise, step, label, augment) if int(step[0]) in at else x.new_zeros(x.shape[0], 6, 16, 16)

    class Noise(Draws):
        def normal(self, *shape, dtype=torch.float32):
            return ref["noise"].to(dtype)

    only_there.parameters = net.parameters
    draws = Noise(0, torch.arange(3))
    found = Bound(process(ref))(in_its_dtype(only_there), ref["x_start"].double(), draws, label.float()).at_step
    each = torch.arange(3)
    torch.testing.assert_close(found.vb[each, at], ref["vb_bpd"].double(), rtol=1e-5, atol=2e-8)
    x0_mse = (ref["p_xstart"] - ref["x_start"]).double().square().flatten(1).mean(1)
    torch.testing.assert_close(found.x0_mse[each, at], x0_mse, rtol=1e-5, atol=0)
    bar = ref["alphas_cumprod"][ref["t"]].view(-1, 1, 1, 1)
    implied = (ref["x_t"] - bar.sqrt() * ref["p_xstart"]) / (1 - bar).sqrt()
    mse = (implied - ref["noise"]).square().flatten(1).mean(1)
    torch.testing.assert_close(found.mse[each, at], mse, rtol=1e-4, atol=1e-7)


class TestMistakes:
    def test_a_continuous_process(self):
        with pytest.raises(UserError, match=r"this run's process, EDM, is continuous; .*process=iddpm") as error:
            bound_of(EDM(), None)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("steps", [0, 13])
    def test_steps_there_are_not(self, steps):
        with pytest.raises(UserError, match=rf"steps={steps}: 1 \.\. 12"):
            bound_of(IDDPM(T), steps)
        with pytest.raises(UserError, match=r"steps=7: .*integer stride"):
            bound_of(IDDPM(T, spacing="stride"), 7)

    def test_images_there_are_not(self, folder):
        for n in ("0", "22"):
            with pytest.raises(UserError, match=rf"n={n}: 1 \.\. 21, the test images of synthetic"):
                run(folder, f"n={n}")

    def test_no_checkpoint(self, folder, tmp_path):
        with pytest.raises(UserError, match="no checkpoint in checkpoints/"):
            run(tmp_path)
        with pytest.raises(UserError, match="stands in no run's folder"):
            run(tmp_path / "gone.ckpt")
        with pytest.raises(UserError, match=r"gone\.ckpt does not exist"):
            run(folder / "checkpoints" / "gone.ckpt")


def test_one_image(folder, tmp_path, capsys):
    run(folder, "n=1", "steps=1", f"out={tmp_path}")
    assert "±" not in capsys.readouterr().out
    assert entry(tmp_path)["error"] is None

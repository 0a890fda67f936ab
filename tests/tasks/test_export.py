"""task=sample from an export: the images of the checkpoint that it came from, and nothing from what is not whole."""

import json
import shutil

import numpy as np
import pytest
import torch

from lorafusion.errors import UserError
from lorafusion.tasks import run_folder
from tests.convert.pickles import save, snapshot
from tests.golden.reference import reference
from tests.tasks.runs import finish, run, tiny
from tests.tasks.test_convert import EDM_UCLORA


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    settings = ("images=64", "process=edm", "sampler=heun", "sampler.steps=4", "backbone.num_classes=10", "seed=3")
    assert finish(tiny(folder, *settings, "conditioning/conv=[shift]", "denoiser.optimizer.lr=0.01")) == 0
    return folder


@pytest.fixture(scope="module")
def export(trained):
    """Far from the run's folder, whose config.yaml is not to be found from there."""
    out = trained.parent / "elsewhere" / "net.safetensors"
    run(("task=convert", f"file={trained}", f"out={out}"))
    return out


@pytest.fixture
def copy(export, tmp_path):
    """(export, its JSON as a dict, what writes that back)."""
    for file in (export, export.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    file = tmp_path / "net.json"
    return tmp_path / export.name, json.loads(file.read_text()), lambda record: file.write_text(json.dumps(record))


def drawn(ckpt, out, *settings):
    run(("task=sample", f"ckpt={ckpt}", f"out={out}", "device=cpu", "n=5", "batch_size=2", *settings))
    with np.load(out / "samples.npz") as file:
        return dict(file)


@pytest.mark.parametrize("settings", [(), ("sampler=ddim", "sampler.steps=3", "guidance=2", "label=balanced")])
def test_the_same_images_as_from_the_checkpoint(trained, export, tmp_path, settings, capsys):
    """Bit for bit: averaged weights, the run's seed, its sampler unless another is chosen."""
    ours, theirs = drawn(trained, tmp_path / "a", *settings), drawn(export, tmp_path / "b", *settings)
    assert "from net.safetensors (64 images seen)" in capsys.readouterr().out
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert not np.array_equal(drawn(trained, tmp_path / "c", *settings, "ema=false")["images"], ours["images"])


def test_the_denoiser_comes_back_whole(trained, export):
    path = run_folder.find_checkpoint(str(trained))
    ours, theirs = (run_folder.restore(p, run_folder.saved_config(p)) for p in (path, export))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert (ours.seed, ours.images_seen, type(ours)) == (theirs.seed, theirs.images_seen, type(theirs))


def test_images_lie_beside_the_export_unless_told(export, tmp_path, capsys):
    run(("task=sample", f"ckpt={export}", "device=cpu", "n=1"))
    assert capsys.readouterr().out.splitlines()[-1] == str(export.parent / "samples" / "net")
    assert (export.parent / "samples" / "net" / "samples.npz").is_file()


def test_weights_from_elsewhere_are_sampled(tmp_path, capsys):
    """The paper's pickle: converted once, then as any other; before that, one line says so."""
    path = save(tmp_path / "network-snapshot.pkl", snapshot(reference("edm_uclora").weights(), "1"))
    with pytest.raises(
        UserError, match=r"neither a checkpoint nor an export of ours; `python run.py task=convert"
    ) as e:
        drawn(path, tmp_path / "out")
    assert "\n" not in str(e.value)
    run((*EDM_UCLORA, "sampler=heun", "sampler.steps=2", "task=convert", f"file={path}"))
    found = drawn(tmp_path / "network-snapshot.safetensors", tmp_path / "out")
    assert found["images"].shape == (5, 16, 16, 3)
    assert "images seen" not in capsys.readouterr().out


def refused(path, words):
    with pytest.raises(UserError, match=words) as error:
        drawn(path, path.parent / "out")
    assert "\n" not in str(error.value)
    assert not (path.parent / "out").exists()


def test_no_json(copy):
    copy[0].with_suffix(".json").unlink()
    refused(copy[0], r"net.json, which says what network it is, is not beside it; `python run.py task=convert")


def test_a_json_of_an_older_version_or_of_something_else(copy):
    path, record, write = copy
    write({key: value for key, value in record.items() if key not in ("denoiser", "sampler", "data")})
    refused(path, "net.json does not say its denoiser, sampler, data; today's `python run.py task=convert")
    write([1, 2])
    refused(path, "does not say its denoiser, ")


def test_an_altered_export(copy):
    path = copy[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(path, "net.safetensors is altered: its checksum")


def test_another_network(copy):
    path, record, write = copy
    write({**record, "backbone": {**record["backbone"], "widths": [4, 4, 4]}})
    refused(path, "of another shape: ")


def test_the_raw_weights_are_another_export(copy):
    with pytest.raises(UserError, match=r"ema=false: .* holds one set of weights; task=convert ema=false"):
        drawn(copy[0], copy[0].parent / "out", "ema=false")


@pytest.mark.parametrize(
    ("process", "words"),
    [
        ({"_target_": "os.system", "command": "true"}, "names os.system, which is no class"),
        ({"_target_": "lorafusion.checkpoint.save"}, "so it is not run"),
        ("${oc.decode:'{_target_: os.system, command: echo}'}", "net.json (holds an interpolation|does not say)"),
        ({"x": "${oc.create:{_target_: os.system, command: echo}}"}, "holds an interpolation"),
    ],
)
def test_a_json_that_somebody_handed_over_runs_nothing(copy, process, words):
    path, record, write = copy
    write({**record, "process": process})
    refused(path, words)

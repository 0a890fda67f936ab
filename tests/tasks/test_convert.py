"""task=convert and init_from=: what any of the readers reads becomes a network of ours, an export, a run's start."""

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file

from lorafusion import checkpoint
from lorafusion.cli import check
from lorafusion.cli.mistake import Mistake
from lorafusion.convert.fill import fill
from lorafusion.errors import UserError
from lorafusion.processes.edm import EDM
from lorafusion.tasks import convert, weights
from tests.convert.hostile import Bomb
from tests.convert.pickles import save, snapshot
from tests.golden.reference import reference, relative
from tests.tasks.runs import CONF, composed, run, tiny

EDM_UCLORA = (
    *("data=synthetic", "data.resolution=16", "process=edm", "backbone=ddpmpp_32", "backbone.model_channels=16"),
    *("backbone.channel_mult=[2,2]", "backbone.num_blocks=1", "backbone.attn_resolutions=[8]"),
    *("backbone.num_classes=10", "conditioning/conv=[shift]", "conditioning/attn=[uc_lora]"),
    *("conditioning.attn.uc_lora.num_bases=5", "conditioning.attn.uc_lora.mlp=[16,8]"),
)
BASE = (
    *(override for override in tiny(Path("unused")) if "uc_lora" not in override),
    *("conditioning/conv=[shift]", "conditioning/attn=[]"),
)


def network(*overrides):
    return instantiate(composed(*overrides).denoiser, _convert_="all").net


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def newest(folder):
    return checkpoint.load(checkpoint.newest(folder / "checkpoints"))


def of_net(state):
    return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short run, with averages that differ from the raw weights."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(tiny(folder, "images=64", "denoiser.optimizer.lr=0.01"))
    return folder


@pytest.mark.parametrize("ema", [True, False])
def test_a_run_is_exported_and_loads_back_bit_for_bit(trained, tmp_path, ema, capsys):
    out = tmp_path / "net.safetensors"
    run(("task=convert", f"file={trained}", f"ema={str(ema).lower()}", f"out={out}"))
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    content = newest(trained)
    expected = of_net(content["state_dict"] | (content["ema"] if ema else {}))
    assert_equal(load_file(out), expected)

    record = json.loads(out.with_suffix(".json").read_text())
    assert record["images_seen"] == 64
    assert record["weights"] == f"our checkpoint ({'ema' if ema else 'raw'})"
    rebuilt = instantiate(record["backbone"], _convert_="all")
    instantiate(record["conditioning"], _convert_="all").attach(rebuilt)
    assert fill(rebuilt, weights.read_verified(out).tensors, source="export") == []
    assert_equal(rebuilt.state_dict(), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_raw_and_averaged_weights_differ(trained):
    content = newest(trained)
    assert any(not torch.equal(value, content["state_dict"][name]) for name, value in content["ema"].items())


def test_the_papers_pickle_becomes_safetensors_of_ours(tmp_path):
    """Beside the pickle, by our names; the network that reads it computes what the original does."""
    ref, marker = reference("edm_uclora"), tmp_path / "marker"
    path = save(tmp_path / "network-snapshot.pkl", snapshot(ref.weights(), f"open({str(marker)!r}, 'w')"))
    run((*EDM_UCLORA, "task=convert", f"file={path}"))
    out = tmp_path / "network-snapshot.safetensors"
    net = network(*EDM_UCLORA).eval()
    fill(net, weights.read_verified(out).tensors, source="a")
    with torch.no_grad():
        denoised = EDM(sigma_data=0.5).denoise(net, ref["x"], ref["sigma"], ref["class_labels"], ref["augment_labels"])
    assert relative(denoised.x0, ref["denoised"]) < 1e-5
    assert not marker.exists()


def test_another_architecture_is_refused_and_nothing_is_written(tmp_path):
    path = save(tmp_path / "a.pkl", snapshot(reference("edm_uclora").weights(), "1"))
    with pytest.raises(UserError, match=r"a.pkl: .* of another shape: .*conv_in.weight \[16, 3, 3, 3\] for \[32, "):
        run((*EDM_UCLORA, "backbone.model_channels=32", "task=convert", f"file={path}"))
    with pytest.raises(UserError, match=r"a.pkl: EDM's weights fit a DDPMpp, not a NanoUNet: .* ours are "):
        run(("task=convert", f"file={path}"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pkl"]


def test_an_altered_export_is_refused(trained, tmp_path):
    out = tmp_path / "net.safetensors"
    run(("task=convert", f"file={trained}", f"out={out}"))
    data = bytearray(out.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    with pytest.raises(UserError, match=r"net.safetensors is altered: .* net.json"):
        weights.read_verified(out)


def test_a_full_disk_leaves_the_older_export_whole(trained, tmp_path, monkeypatch):
    out = tmp_path / "net.safetensors"
    run(("task=convert", f"file={trained}", f"out={out}"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "save_file", full)
    with pytest.raises(UserError, match=r"net.safetensors could not be written: .* No space left"):
        run(("task=convert", f"file={trained}", f"out={out}"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(UserError, match="could not be written"):
        run(("task=convert", f"file={trained}", f"out={out}/below.safetensors"))


def test_the_file_itself_is_not_written_over(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(network(*EDM_UCLORA).state_dict(), path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="would write over"):
        run((*EDM_UCLORA, "task=convert", f"file={path}"))
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        run((*EDM_UCLORA, "task=convert", f"file={path}", f"out={tmp_path / 'net.pt'}"))
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def base_file(folder: Path) -> Path:
    """A trained base without attention conditioning, at no particular seed."""
    torch.manual_seed(99)
    state = network(*BASE).state_dict()
    for value in state.values():
        value.add_(torch.randn_like(value) * 0.01)
    save_file(state, folder / "base.safetensors")
    return folder / "base.safetensors"


def with_lora(folder: Path, *overrides: str) -> tuple[str, ...]:
    return tiny(folder, "conditioning/conv=[shift]", *overrides)


def test_training_starts_from_a_base_under_fresh_lora(tmp_path, capsys):
    """At a learning rate of 0 the checkpoint is the base and the conditioning's own init; the averages start there."""
    base = base_file(tmp_path)
    run(with_lora(tmp_path / "run", "images=32", f"init_from={base}", "denoiser.optimizer.lr=0.0"))
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("init_from: "))
    content = newest(tmp_path / "run")
    found, given = of_net(content["state_dict"]), load_file(base)
    assert f"{len(given)} tensors of the network from {base} (safetensors); {len(found) - len(given)} more" in said
    torch.manual_seed(0)
    init = network(*with_lora(tmp_path)).state_dict()
    assert_equal(found, {**init, **given})
    assert any(".updates." in name for name in found)
    assert_equal(of_net(content["ema"]), found)


def test_all_of_it_is_trained(tmp_path):
    base = base_file(tmp_path)
    run(with_lora(tmp_path / "run", "images=160", f"init_from={base}", "denoiser.optimizer.lr=0.01"))
    torch.manual_seed(0)
    start = {**network(*with_lora(tmp_path)).state_dict(), **load_file(base)}
    for name, value in of_net(newest(tmp_path / "run")["state_dict"]).items():
        assert not torch.equal(value, start[name]), f"{name} was not trained"


def test_resume_wins_once_there_is_a_checkpoint(tmp_path, capsys):
    """A requeued job gives both: it starts from the base once, then goes on; the result is that of one run."""
    base = base_file(tmp_path)
    whole, parts = (with_lora(tmp_path / name, f"init_from={base}", "resume=auto") for name in ("whole", "parts"))
    run((*whole, "images=96"))
    run((*parts, "images=48"))
    assert "init_from: not read" not in capsys.readouterr().out
    run((*parts, "images=96"))
    assert capsys.readouterr().out.count("init_from: not read, the run goes on from ") == 1
    assert_equal(newest(tmp_path / "parts")["state_dict"], newest(tmp_path / "whole")["state_dict"])


def test_a_run_starts_from_another_runs_folder(trained, tmp_path):
    run(tiny(tmp_path / "run", "images=16", f"init_from={trained}", "denoiser.optimizer.lr=0.0"))
    content = newest(trained)
    assert_equal(of_net(newest(tmp_path / "run")["state_dict"]), of_net(content["state_dict"] | content["ema"]))


def test_a_hostile_checkpoint_with_a_right_checksum_is_refused(tmp_path, monkeypatch):
    """A checksum says that a file is whole, not that it is harmless."""
    path, marker = tmp_path / "a.ckpt", tmp_path / "marker"
    checkpoint.save({"state_dict": {}, "images_seen": 1, "loops": Bomb(f"touch {marker}")}, path)
    checkpoint.verify(path)
    with pytest.raises(UserError, match=r"a.ckpt are refused: its pickle asks for posix.system"):
        run(tiny(tmp_path / "run", f"init_from={path}"))
    assert not marker.exists()


def test_a_cut_checkpoint_is_refused_by_its_checksum(trained, tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(checkpoint.newest(trained / "checkpoints").read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short or altered"):
        weights.read_verified(path)


@pytest.mark.parametrize("typed", ["init_from=bsae.pkl", "task=convert file=bsae.pkl"])
def test_a_missing_file_is_a_mistake_of_the_command_line(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.pkl").touch()
    with pytest.raises(Mistake, match=r"did you mean \w+=base.pkl\?"):
        check.check(typed.split(), CONF)

"""Every format gives back the tensors that went in, bit for bit; nothing in a file runs."""

import io
import json
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.convert.fill import fill
from lorafusion.convert.formats import read
from lorafusion.processes.edm import EDM
from tests.convert.pickles import save, snapshot, their_modules
from tests.golden.reference import edm_net, iddpm_net, reference, relative

EDM_FILES = ["edm_uncond", "edm_cond_augment", "edm_uclora"]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def source(marker):
    """What an original's pickle carries as source code; the original runs it."""
    return f"open({str(marker)!r}, 'w').close()"


def emptied(net):
    with torch.no_grad():
        for value in net.state_dict().values():
            value.zero_()
    return net


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", EDM_FILES)
def test_a_network_pickle_is_read_and_computes_what_the_original_does(tmp_path, name, protocol):
    ref, marker = reference(name), tmp_path / "marker"
    filters = ("model.enc.8x8_down.conv0", "model.dec.16x16_up.conv0")
    path = save(tmp_path / "network.pkl", snapshot(ref.weights(), source(marker), filters), protocol)
    weights = read(path)
    taps = {f"{module}.resample_filter": torch.full((1, 1, 2, 2), 0.25) for module in filters}
    assert_equal(weights.tensors, {**ref.weights(), **taps})
    assert weights.kind == "a pickled network (ema)"

    net = emptied(edm_net(ref))
    assert isinstance(net, DDPMpp)
    assert fill(net, weights.tensors, source=path.name) == []
    given = (ref["sigma"], ref.get("class_labels"), ref.get("augment_labels"))
    with torch.no_grad():
        denoised = EDM(sigma_data=0.5).denoise(net, ref["x"], *given).x0
    assert relative(denoised, ref["denoised"]) < 1e-5
    assert not marker.exists()


def test_a_training_state_in_a_torch_file_holds_a_network_too(tmp_path):
    """training-state-*.pt: {'net': network, 'optimizer_state': ...} by torch.save; read as the pickle is."""
    ref = reference("edm_uncond")
    path = tmp_path / "training-state.pt"
    with their_modules():
        content = {"net": snapshot(ref.weights(), "1")["ema"], "optimizer_state": {"state": {0: torch.ones(2)}}}
        torch.save(content, path)
    assert_equal(read(path).tensors, ref.weights())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_improved_diffusion_state_dicts(tmp_path, zipped):
    ref = reference("iddpm_cond")
    state = OrderedDict(ref.weights())
    state._metadata = OrderedDict(version=1)  # as nn.Module.state_dict() leaves it  # pyright: ignore
    path = tmp_path / "ema_0.9999_500000.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    weights = read(path)
    assert_equal(weights.tensors, ref.weights())
    net = emptied(iddpm_net(ref))
    assert fill(net, weights.tensors, source=path.name) == []
    label = torch.nn.functional.one_hot(ref["y"], 10).float()
    with torch.no_grad():
        assert relative(net(ref["x_start"], ref["model_t"], label=label), ref["model_out"]) < 1e-5


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_dtype_and_view_is_read_as_torch_reads_it(tmp_path, zipped):
    big = torch.randn(6, 8)
    state = {str(dtype).partition(".")[2]: torch.tensor([0, 1, 1, 0, 1]).to(dtype) for dtype in
             (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
              torch.uint8, torch.bool)}  # fmt: skip
    state |= {"whole": big, "part": big[1:5:2, 2:], "turned": big.T, "scalar": torch.tensor(3.5)}
    state |= {"empty": torch.empty(0, 3), "parameter": torch.nn.Parameter(torch.randn(3))}
    path = tmp_path / "state.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert_equal(read(path).tensors, torch.load(path, weights_only=True))


def test_a_plain_pickle_of_tensors(tmp_path):
    state = {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3).double()}
    path = tmp_path / "state.pkl"
    path.write_bytes(pickle.dumps(state))
    assert_equal(read(path).tensors, state)


@pytest.mark.parametrize("n", [1, 8, 60])
def test_safetensors(tmp_path, n):
    """Headers of many lengths, whose first bytes are told from a pickle's and a zip's."""
    state = {f"layer{k}.weight": torch.randn(2, k + 1) for k in range(n)}
    save_file(state, tmp_path / "a.safetensors")
    assert_equal(read(tmp_path / "a.safetensors").tensors, state)


def test_safetensors_whose_length_looks_like_a_pickle(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    header = header.ljust(0x280)  # 80 02: the start of a pickle
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\x80\x3f")
    assert_equal(read(tmp_path / "a").tensors, {"a": torch.ones(1)})


def checkpoint_content(ema: bool):
    content = {
        "state_dict": {"net.a": torch.ones(2), "net.b": torch.zeros(1), "other": torch.ones(3)},
        "images_seen": 7,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]}],
    }
    return content | ({"ema": {"net.a": torch.full((2,), 5.0)}} if ema else {})


def test_our_checkpoint_gives_its_averages_or_its_raw_weights(tmp_path):
    torch.save(checkpoint_content(ema=True), tmp_path / "a.ckpt")
    raw = {"a": torch.ones(2), "b": torch.zeros(1)}
    averaged, weights = read(tmp_path / "a.ckpt"), read(tmp_path / "a.ckpt", ema=False)
    assert_equal(averaged.tensors, raw | {"a": torch.full((2,), 5.0)})
    assert (averaged.kind, averaged.images_seen) == ("our checkpoint (ema)", 7)
    assert_equal(weights.tensors, raw)
    assert weights.kind == "our checkpoint (raw)"
    torch.save(checkpoint_content(ema=False), tmp_path / "b.ckpt")
    assert_equal(read(tmp_path / "b.ckpt").tensors, raw)
    assert read(tmp_path / "b.ckpt").kind == "our checkpoint (raw)"


def test_the_wrapper_of_several_devices_is_taken_off(tmp_path):
    torch.save({"module.a": torch.ones(1), "module.b.c": torch.ones(2)}, tmp_path / "a.pt")
    assert {*read(tmp_path / "a.pt").tensors} == {"a", "b.c"}


def test_shared_weights_stay_shared_and_transient_buffers_are_left_out(tmp_path):
    layer = torch.nn.Linear(2, 2)
    net = torch.nn.Sequential(layer, layer)
    net.register_buffer("kept", torch.ones(1))
    net.register_buffer("cache", torch.ones(1), persistent=False)
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(net))
    assert_equal(read(path).tensors, {**net.state_dict()})


def test_reading_needs_memory_for_the_file_alone(tmp_path):
    """A tensor of a torch file is a view of its storage, so the sum of all is what the file holds."""
    buffer = io.BytesIO()
    torch.save({"a": torch.randn(1000)[:10]}, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    assert read(tmp_path / "a.pt").tensors["a"].untyped_storage().nbytes() == 4000

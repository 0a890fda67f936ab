"""An adapter's file: what comes back, and what is refused."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import lorafusion as lf
from lorafusion.errors import UserError
from tests.dropin.networks import (
    CALLS,
    EVERY,
    MODELS,
    PRESETS,
    Own,
    labels,
    made,
    own,
    read,
    steps,
    trained,
    unet,
    x,
)

pytestmark = pytest.mark.usefixtures("float64")
KEY = "lorafusion.adapter"


def written(path) -> tuple[dict, dict]:
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()[KEY])  # noqa: SIM118


@pytest.mark.parametrize("name", MODELS)
def test_a_known_model_comes_back_bit_for_bit(name, tmp_path):
    model, call = MODELS[name](), CALLS[name]
    handle = trained(lf.drop_in, model, "all" if name == "dit" else "uc", **{"num_classes": None, **PRESETS[name]})
    handle.save(tmp_path / "new" / "adapter.safetensors")
    other = MODELS[name]()
    loaded = lf.load_adapter(other, tmp_path / "new" / "adapter.safetensors")
    assert torch.equal(call(other), call(model))
    assert loaded.config == handle.config
    tensors, _ = written(tmp_path / "new" / "adapter.safetensors")
    assert not tensors.keys() & MODELS[name]().state_dict().keys()
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in handle.parameters())


@pytest.mark.parametrize("strategies", ["uc_scaled", "time", "time_of_each_step", "class", "class_table", "all"])
def test_every_strategy_comes_back(strategies, tmp_path):
    model, handle = own(strategies=strategies)
    handle.save(tmp_path / "a.safetensors")
    other = made(Own)
    lf.load_adapter(other, tmp_path / "a.safetensors", read_cond=read)
    assert torch.equal(other(x(), steps(), labels()), model(x(), steps(), labels()))


def test_another_base_is_refused_by_name_and_by_shape(tmp_path):
    handle = own()[1]
    handle.save(tmp_path / "a.safetensors")
    wide, short, few = made(Own), made(Own), unet()
    wide.blocks[1].dense = torch.nn.Linear(2, 3)
    del short.blocks[2]
    for model, said in (
        (wide, r"blocks.1.dense is 3 x 2 here"),
        (short, r"blocks.2.conv, which is no dense layer here"),
        (few, r"blocks.0.conv, which is no dense layer here"),
    ):
        names = [(name, type(m)) for name, m in model.named_modules()]
        with pytest.raises(ValueError, match=said) as caught:
            lf.load_adapter(model, tmp_path / "a.safetensors")
        assert "\n" not in str(caught.value)
        assert [(name, type(m)) for name, m in model.named_modules()] == names


def altered(path, config=None, drop=None, add=None, metadata=None):
    """The file with something else in it."""
    tensors, said = written(path)
    tensors = {k: v for k, v in tensors.items() if k != drop} | (add or {})
    config = said | (config or {})
    save_file(tensors, path, metadata={KEY: json.dumps(config)} if metadata is None else metadata)


UP = "blocks.0.conv.uc_lora.up"
HOSTILE = {
    "a missing tensor": ({"drop": UP}, "is missing"),
    "a tensor too many": ({"add": {"else": torch.zeros(1)}}, "else is unknown"),
    "a tensor of another shape": ({"add": {"embedding.layer0.bias": torch.zeros(3)}}, "here"),
    "no metadata": ({"metadata": {}}, "no lorafusion.adapter in its metadata"),
    "metadata that is no json": ({"metadata": {KEY: "{"}}, "cannot be read"),
    "metadata that is nested": ({"metadata": {KEY: "[" * 100_000}}, "cannot be read"),
    "metadata that is no object": ({"metadata": {KEY: "[]"}}, "of a format"),
    "another format": ({"config": {"format": 99}}, "of a format"),
    "a class of ours that is no strategy": ({"config": {"strategies": [{"class": "EmbMLP"}]}}, "KeyError"),
    "a class of elsewhere": ({"config": {"strategies": [{"class": "os.system"}]}}, "KeyError"),
    "a class that is imported": ({"config": {"strategies": [{"class": "LowRank"}]}}, "KeyError"),
    "a class that is no name": ({"config": {"strategies": [{"class": []}]}}, "TypeError"),
    "no strategy": ({"config": {"strategies": []}}, "needs a strategy"),
    "a setting that is unknown": ({"config": {"strategies": [{"class": "UCLoRA", "x": 1}]}}, "TypeError"),
    "a setting of another kind": ({"config": {"strategies": [{"class": "UCLoRA", "rank": "x"}]}}, "not supported"),
    "a size that no machine has": ({"config": {"strategies": [{"class": "UCLoRA", "rank": 10**15}]}}, "does not say"),
    "a scale of another kind": ({"config": {"noise_scale": "x"}}, "could not convert"),
    "an unknown reader": ({"config": {"read_cond": "os"}}, "KeyError"),
    "targets that are no list": ({"config": {"targets": 3}}, "TypeError"),
    "targets that are the model": ({"config": {"targets": [""]}}, "no dense layer"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_the_model_stays(case, tmp_path):
    path = tmp_path / "a.safetensors"
    own()[1].save(path)
    change, said = HOSTILE[case]
    altered(path, **change)
    model = made(Own)
    names = [(name, type(m)) for name, m in model.named_modules()]
    with pytest.raises((UserError, ValueError), match=said) as caught:
        lf.load_adapter(model, path, **({} if case == "an unknown reader" else {"read_cond": read}))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert [(name, type(m)) for name, m in model.named_modules()] == names
    assert not lf.handles(model)


class Ran:
    def __reduce__(self):
        return pytest.fail, ("what a file says was run",)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 64, pickle.dumps(Ran())], ids=len)
def test_what_is_no_safetensors_is_refused(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        lf.load_adapter(made(Own), path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="nothing"):
        lf.load_adapter(made(Own), tmp_path / "nothing.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not be written"):
        own()[1].save(tmp_path / "file" / "a.safetensors")


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    handle = own()[1]
    handle.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("lorafusion.dropin.adapter_file.save_file", _broken)
    with pytest.raises(UserError):
        handle.save(path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def _broken(tensors, path, metadata):
    path.write_bytes(b"half")
    raise OSError("no space left")


def test_targets_are_saved_by_name():
    assert own()[1].config["targets"] == [f"blocks.{k}.{layer}" for k in range(3) for layer in ("conv", "dense")], EVERY

"""What else people do with a model: compile, average, wrap, save and share it."""

import io
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import diffusers
import peft
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import lorafusion as lf
from lorafusion.ema import EMA
from tests.dropin.networks import (
    CALLS,
    EVERY,
    PRESETS,
    UC,
    Own,
    close,
    gradients,
    labels,
    made,
    own,
    perturb,
    read,
    steps,
    trained,
    unet,
    vit,
    x,
)

pytestmark = pytest.mark.usefixtures("float64")
PEFT = {"r": 2, "target_modules": ["to_q", "to_v"], "init_lora_weights": False}


def conditioned() -> tuple:
    model = unet()
    return model, trained(lf.drop_in, model, **PRESETS["unet"], num_classes=None)


def alone(program: str, *arguments: str) -> subprocess.Popen:
    """A test program in a process of its own, without the checks of shapes, through which nothing can be compiled."""
    file = Path(__file__).with_name(program)
    environment = {**os.environ, "PYTHONPATH": str(file.parents[2]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, str(file), *arguments], env=environment, text=True, **pipes)


@pytest.mark.slow
def test_compiled_whole():
    process = alone("compiled.py")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]


def test_two_processes(tmp_path):
    """DistributedDataParallel over gloo: gradients are those of the whole batch, and every parameter has one."""
    processes = [alone("ranks.py", str(rank), str(tmp_path)) for rank in range(2)]
    said = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    model, _ = own("plain", "all")
    model(x()[:2], steps()[:2], labels()[:2]).square().mean().backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == gradients(model).keys()
        for name, gradient in gradients(model).items():
            close(found[name], gradient)


def test_averages_of_weights():
    """torch's averaged copy has its own adapter; ours swaps values in place."""
    model, handle = own()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    ema = EMA(model.parameters(), decay=0.5)
    averaged.update_parameters(model)  # the first call copies
    perturb(handle)
    averaged.update_parameters(model)
    ema.update(model.parameters(), 1, 1)
    batch = (x(), steps(), labels())
    raw = model(*batch)
    ema.swap(model.parameters())
    close(averaged(*batch), model(*batch))
    assert (model(*batch) - raw).abs().max() > 1e-4
    ema.swap(model.parameters())
    assert torch.equal(model(*batch), raw)


@pytest.mark.parametrize("strategies", ["uc", "all"])
@pytest.mark.parametrize("rows", [1, 3])
def test_autocast(strategies, rows):
    model, handle = own(strategies=strategies)
    model.float()
    batch = (x().float(), steps()[:rows], labels()[:rows])
    expected = model(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(*batch)
        out.float().square().sum().backward()
    assert (out - expected).norm() / expected.norm() < 0.03
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in handle.parameters())
    model.zero_grad()
    model.taps.clear()
    half = deepcopy(model).bfloat16()
    out = half(x().bfloat16(), *batch[1:])  # a step is not rounded to bfloat16
    assert out.dtype == torch.bfloat16
    assert (out - expected).norm() / expected.norm() < 0.1


def test_peft_before():
    model = unet()
    torch.manual_seed(3)
    peft.inject_adapter_in_model(peft.LoraConfig(**PEFT), model)
    before = CALLS["unet"](model)
    handle = lf.drop_in(model, lf.UCLoRA(**UC), **PRESETS["unet"])
    assert torch.equal(CALLS["unet"](model), before)
    assert not any("base_layer" in name for name in handle.targets)
    perturb(handle)
    both = CALLS["unet"](model)
    bare = unet()
    peft.inject_adapter_in_model(peft.LoraConfig(**PEFT), bare)
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if ".adapters." not in k})
    assert torch.equal(CALLS["unet"](bare), before)
    lf.load_adapter(bare, saved(handle))
    assert torch.equal(CALLS["unet"](bare), both)
    plain = unet()
    peft.inject_adapter_in_model(peft.LoraConfig(**PEFT), plain)
    plain.load_state_dict(handle.bake(noise=500))
    with torch.no_grad():
        close(CALLS["unet"](plain, t=500), CALLS["unet"](model, t=500))
    handle.remove()
    assert torch.equal(CALLS["unet"](model), before)


def saved(handle) -> str:
    import tempfile

    path = f"{tempfile.mkdtemp()}/adapter.safetensors"
    handle.save(path)
    return path


def test_peft_after():
    model, handle = conditioned()
    ours = CALLS["unet"](model)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**PEFT))
    both = CALLS["unet"](model)
    assert (both - ours).abs().max() > 1e-5
    with wrapped.disable_adapter():
        close(CALLS["unet"](model), ours, 1e-15)
    handle.scale = 0
    theirs = CALLS["unet"](model)
    assert (theirs - both).abs().max() > 1e-5
    handle.scale = 1
    state = {name: value.clone() for name, value in handle.state_dict().items()}
    with handle.merged(noise=500):
        merged = CALLS["unet"](model, t=500)
    close(CALLS["unet"](model, t=500), merged)
    handle.remove()
    close(CALLS["unet"](model), theirs)
    model = wrapped.unload()
    lf.load_adapter(model, saved_state(state))
    close(CALLS["unet"](model), ours)


def saved_state(state: dict) -> str:
    handle = conditioned()[1]
    handle.load_state_dict(state)
    return saved(handle)


def test_a_whole_model_through_torch_save():
    model, _ = own(strategies="all")
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    batch = (x(), steps(), labels())
    assert torch.equal(again(*batch), model(*batch))
    (handle,) = lf.handles(again).values()
    handle.remove()
    assert torch.equal(again(*batch), made(Own)(*batch))


def test_a_state_dict():
    model, _ = own()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, handle = own()
    perturb(handle)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = (x(), steps(), labels())
    assert torch.equal(other(*batch), model(*batch))
    base = made(Own).state_dict()
    assert not base.keys() - model.state_dict().keys()
    assert not other.load_state_dict(base, strict=False).unexpected_keys


def test_diffusers_save_and_load(tmp_path):
    model, handle = conditioned()
    model.save_pretrained(tmp_path)
    handle.save(tmp_path / "adapter.safetensors")
    again = diffusers.UNet2DModel.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert type(again) is diffusers.UNet2DModel
    assert again.state_dict().keys() == unet().state_dict().keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    lf.load_adapter(again, tmp_path / "adapter.safetensors")
    assert torch.equal(CALLS["unet"](again), CALLS["unet"](model))


def test_one_layer_in_two_models():
    """A layer that two models share belongs to the one whose call is under way."""
    model = vit()
    handle = perturb(lf.drop_in(model, lf.UCLoRA(**UC), targets=lf.TIMM_ATTENTION))
    with pytest.raises(RuntimeError, match="outside its model's forward"):
        model.blocks[0](torch.randn(1, 5, 8))
    with handle.given(noise=1):
        assert model(x()).isfinite().all()


def test_gradients_of_several_forwards_are_their_sum():
    model, _ = own()
    batches = [(x() + k, steps().roll(k), labels().roll(k)) for k in range(3)]
    sum(model(*batch).square().sum() for batch in batches).backward()
    together = {name: g.clone() for name, g in gradients(model).items()}
    model.zero_grad()
    for batch in batches:
        model(*batch).square().sum().backward()
    for name, gradient in gradients(model).items():
        close(gradient, together[name])


def test_a_reader_of_the_arguments_by_name():
    """Positional or by keyword, the reader sees names."""
    model = made(Own)
    seen = []

    def note(call):
        seen.append({name: value for name, value in call.items() if name != "x"})
        return read(call)

    lf.drop_in(model, lf.TimeLoRA(2, 4), targets=EVERY, read_cond=note, num_steps=1000, num_classes=5)
    model(x(), 3)
    model(x(), t=3)
    model(x=x(), t=3, y=1)
    assert seen == [{"t": 3}, {"t": 3}, {"t": 3, "y": 1}]

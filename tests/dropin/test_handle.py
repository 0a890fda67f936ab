"""What a handle does to a model, and that it undoes it."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lorafusion as lf
from lorafusion.dropin.host import Host
from tests.dropin.networks import (
    CALLS,
    EVERY,
    MODELS,
    PRESETS,
    UC,
    close,
    labels,
    made,
    own,
    perturb,
    read,
    steps,
    trained,
    unet,
    x,
)
from tests.dropin.networks import Own as OwnModel

pytestmark = pytest.mark.usefixtures("float64")
AT = {"noise": 7, "label": 3}


def anatomy(model: nn.Module) -> list:
    """Everything of a model's make-up that drop_in could have changed."""
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
    hooks = (*hooks, "_forward_pre_hooks_with_kwargs")
    parts = [
        (name, type(m), sorted(vars(m)), [len(getattr(m, h)) for h in hooks], [*m._modules])
        for name, m in model.named_modules()
    ]
    return [*parts, *((key, id(value)) for key, value in model.named_parameters())]


@pytest.mark.parametrize("name", MODELS)
def test_removing_restores_the_model(name):
    model, call = MODELS[name](), CALLS[name]
    before, out = anatomy(model), call(model)
    strategies = "uc" if name != "dit" else "all"
    handle = trained(lf.drop_in, model, strategies, **{"num_classes": None, **PRESETS[name]})
    other = deepcopy(model)
    conditioned = call(model)
    handle.remove()
    assert anatomy(model) == before
    assert torch.equal(call(model), out)
    assert torch.equal(call(other), conditioned)  # a copy is not touched
    lf.handles(other)["default"].remove()
    assert [part[:4] for part in anatomy(other) if len(part) > 2] == [part[:4] for part in before if len(part) > 2]
    assert torch.equal(call(other), out)


def test_two_handles_add_up_and_leave_one_by_one():
    model, first = own()
    plain = made(OwnModel)
    second = trained(lf.drop_in, model, "time", targets=r"blocks\.[12]\.dense$", read_cond=read, name="second")
    assert [*lf.handles(model)] == ["default", "second"]
    condition = (steps(), labels())
    both = model(x(), *condition)
    first.scale = second.scale = 0
    close(model(x(), *condition), plain(x(), *condition))
    first.scale, second.scale = 1, 1
    close(model(x(), *condition), both)
    with first.merged(noise=1, label=0), second.merged(noise=500):
        merged = model(x(), steps())
    with first.given(noise=1, label=0), second.given(noise=500):
        close(merged, model(x(), steps()))
    close(model(x(), *condition), both)
    first.remove()
    close(model(x(), *condition), solo_time()(x(), *condition))
    second.remove()
    assert anatomy(model)[: len([*model.modules()])] == anatomy(plain)[: len([*plain.modules()])]
    assert torch.equal(model(x(), *condition), plain(x(), *condition))


def solo_time() -> nn.Module:
    model = made(OwnModel)
    trained(lf.drop_in, model, "time", targets=r"blocks\.[12]\.dense$", read_cond=read, name="second")
    return model


@pytest.mark.parametrize("strategies", ["uc", "time", "time_of_each_step", "class", "all"])
def test_merged_and_baked_are_the_same_function(strategies):
    model, handle = own(strategies=strategies)
    t, y = torch.tensor([7]), torch.tensor([3])
    with torch.no_grad():
        expected = model(x(), t.expand(3), y.expand(3))  # a row for every sample: factored
        with handle.merged(**AT):
            merged = model(x(), t)
        plain = made(OwnModel)
        plain.load_state_dict(handle.bake(**AT))
        close(merged, expected, 1e-12)
        close(plain(x(), t), expected, 1e-12)
        close(model(x(), t.expand(3), y.expand(3)), expected, 1e-15)


def test_merged_costs_what_the_base_costs():
    model = unet()
    with FlopCounterMode(display=False) as base, torch.no_grad():
        model(x(), 7)
    handle = trained(
        lf.drop_in, model, targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_unet, num_classes=None
    )
    with handle.merged(noise=7), FlopCounterMode(display=False) as merged, torch.no_grad():
        model(x(), 7)
    with FlopCounterMode(display=False) as conditioned, torch.no_grad():
        model(x(), steps())
    assert merged.get_total_flops() == base.get_total_flops() < conditioned.get_total_flops()


def test_merged_ends_with_an_exception():
    model, handle = own()
    before = model(x(), steps(), labels())
    with pytest.raises(ZeroDivisionError), handle.merged(**AT):
        raise ZeroDivisionError
    assert torch.equal(model(x(), steps(), labels()), before)
    with pytest.raises(ValueError, match="one row; got 3"), handle.merged(noise=steps(), label=labels()):
        pass
    assert torch.equal(model(x(), steps(), labels()), before)
    with pytest.raises(RuntimeError, match="merged already"), handle.merged(**AT), handle.merged(**AT):
        pass
    assert torch.equal(model(x(), steps(), labels()), before)


def test_baking_a_bias_into_a_layer_without_one_is_refused():
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    handle = lf.drop_in(model, lf.UCLoRA(**UC), targets="0")
    with pytest.raises(ValueError, match=r"0 has no bias .* UCLoRA\(bias=False\)"):
        handle.bake(noise=1)
    handle.remove()
    handle = perturb(lf.drop_in(model, lf.UCLoRA(**UC, bias=False), targets="0"))
    state = handle.bake(noise=1)
    assert [*state] == ["0.weight"]
    with handle.given(noise=1):
        close(model(x()[..., :4]), x()[..., :4] @ state["0.weight"].T)


@pytest.mark.parametrize("scale", [0, 0.5, 2])
def test_scale_multiplies_every_update(scale):
    model, handle = own(strategies="all")
    assert handle.scale == 1
    handle.scale = scale
    out = model(x(), steps(), labels())
    by_hand, other = own(strategies="all")
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.endswith((".up", "lora.bias")):
                parameter *= scale
    close(out, by_hand(x(), steps(), labels()))
    if scale == 0:
        close(out, made(OwnModel)(x(), steps()))


def test_a_copy_is_independent():
    model, handle = own()
    copy = deepcopy(model)
    before = copy(x(), steps(), labels())
    assert torch.equal(before, model(x(), steps(), labels()))
    perturb(handle)
    assert torch.equal(copy(x(), steps(), labels()), before)
    assert not torch.equal(model(x(), steps(), labels()), before)
    (own_handle,) = lf.handles(copy).values()
    assert own_handle is not handle
    assert own_handle.model is copy
    own_handle.scale = 0
    close(copy(x(), steps(), labels()), made(OwnModel)(x(), steps()))


def test_training_the_adapter_alone_and_all():
    model, handle = own()
    names = {id(p): name for name, p in model.named_parameters()}
    added = {names[id(p)] for p in handle.parameters()}
    base = {name for name, _ in made(OwnModel).named_parameters()}
    assert added | base == {*names.values()}
    assert not added & base
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(handle.parameters(), 0.1)
    model(x(), steps(), labels()).square().mean().backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == added - {name for name, p in model.named_parameters() if not p.grad.abs().any()}
    assert len(changed) >= len(added) - 6  # of a shared group norm's shift, say, a gradient may vanish


def test_layers_keep_their_mode_and_their_references():
    model = made(OwnModel).eval()
    layer = model.blocks[0].dense
    lf.drop_in(model, lf.UCLoRA(**UC), targets=EVERY, read_cond=read)
    assert model.blocks[0].dense is layer
    assert isinstance(layer, Host)
    assert isinstance(layer, nn.Linear)
    assert not any(module.training for module in layer.modules())

"""The change of effective weights: equal to what dense weights say, in every network and of every strategy."""

import numpy as np
import pytest
import torch

from lorafusion.analysis.conditioning_response import ConditioningResponse, measure
from lorafusion.analysis.effective_weight import EffectiveWeight
from lorafusion.analysis.layers import conditions, layers_of
from lorafusion.analysis.levels import levels_of
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.errors import UserError
from lorafusion.processes.ddpm import DDPM
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.heun import Heun
from tests.analysis.denoisers import edm, moved, nano


def dense(layer, cond) -> torch.Tensor:
    """(B, d_out, d_in): the weights that the layer's own forward pass applies to each row."""
    eye = torch.eye(layer.in_features).expand(len(cond.noise), -1, -1)
    with torch.no_grad():
        return (layer(eye, cond) - layer(torch.zeros_like(eye), cond)).transpose(1, 2)


STRATEGIES = {
    "time_lora": (TimeLoRA(rank=2, num_bases=5),),
    "one for each step": (TimeLoRA(rank=2, compositional=False),),
    "uc_lora with a learned scale": (UCLoRA(rank=2, num_bases=3, mlp=(8,), scale="learned"),),
    "together": (TimeLoRA(rank=1, compositional=False), ClassLoRA(rank=2), UCLoRA(rank=1, num_bases=2, mlp=(8,))),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_is_what_dense_weights_say(float64, name):
    denoiser = moved(nano(*STRATEGIES[name], process=DDPM(7), num_classes=3))
    levels = levels_of(denoiser.process, Ancestral(), 7)
    found = measure(denoiser, levels, [2, 0])
    assert found.response.shape == (8, 2, 7)
    label = torch.eye(3)[[2, 0]].repeat_interleave(7, dim=0)
    (cond,) = conditions(denoiser, levels.sigma.repeat(2), label)
    for i, layer in enumerate(layers_of(denoiser.net).values()):
        weight = dense(layer, cond).unflatten(0, (2, 7))  # (C, N, d_out, d_in)
        response = (weight - layer.weight.detach()).norm(dim=(2, 3)) / layer.weight.detach().norm()
        np.testing.assert_allclose(found.response[i], response, rtol=1e-9)
        for dim, values in ((1, found.with_level[i]), (0, found.with_class[i])):
            mean = weight.mean(dim, keepdim=True)
            moves = (weight - mean).norm(dim=(2, 3)) / mean.norm(dim=(2, 3))
            np.testing.assert_allclose(values, moves, rtol=1e-7, atol=1e-8)
    assert found.response.min() > 0.01


def test_only_the_bases_that_are_used_are_multiplied(float64):
    """A LoRA for each of 4001 steps has 16,004 columns; four conditions use 16."""
    denoiser = moved(nano(TimeLoRA(rank=4, compositional=False), process=DDPM(4001)))
    levels = levels_of(denoiser.process, Ancestral(), 4)
    conds = [*conditions(denoiser, levels.sigma, None)]
    assert EffectiveWeight(next(iter(layers_of(denoiser.net).values())), conds, (1, 4)).gram.shape == (16, 16)


def test_a_fresh_update_is_nothing():
    found = measure(nano(TimeLoRA()), levels_of(DDPM(40), Ancestral(), 5), None)
    assert not found.response.any()
    assert not found.with_level.any()


def test_an_update_of_a_layer_that_is_zero():
    """As the output layers of attention are at init: infinitely more than nothing, which no picture stumbles over."""
    denoiser = nano(TimeLoRA())
    with torch.no_grad():
        for layer in layers_of(denoiser.net).values():
            layer.updates["time_lora"].up.fill_(1)
    assert np.isinf(measure(denoiser, levels_of(DDPM(40), Ancestral(), 5), None).response[1]).all()
    assert {*ConditioningResponse(points=5)(denoiser, None, Ancestral()).pictures} == {"levels"}


def test_strength_counts():
    denoiser = moved(edm(ClassLoRA(), num_classes=3))
    once = measure(denoiser, levels_of(denoiser.process, Heun(2), 2), [1]).response
    for layer in layers_of(denoiser.net).values():
        layer.updates["class_lora"].strength = 2.0
    twice = measure(denoiser, levels_of(denoiser.process, Heun(2), 2), [1]).response
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_what_is_told():
    denoiser = moved(edm(ClassLoRA(), num_classes=12))
    found = ConditioningResponse(points=3)(denoiser, None, Heun(2, 0.1, 10))
    assert found.arrays["response"].shape == (8, 10, 3)
    assert {*found.pictures} == {"classes"}  # ClassLoRA ignores the noise level
    assert found.said[0].startswith("no movement with the noise level")
    assert len(found.tables["response"]) == 8 * 10 * 3
    line = found.tables["response"][1 * 10 * 3 + 4 * 3 + 2]
    assert (line["layer"], line["class"]) == ("enc.1.attn.proj", 4)
    assert line["level"] == pytest.approx(np.log(10))
    assert line["with_class"] == found.arrays["with_class"][1, 4, 2]
    assert found.numbers["layers"]["enc.1.attn.proj"]["response"] == found.arrays["response"][1].mean()
    times = ConditioningResponse(points=3)(moved(nano(TimeLoRA())), None, Ancestral())
    assert {*times.pictures} == {"levels"}
    assert "class" not in times.tables["response"][0]


def test_mistakes():
    with pytest.raises(UserError, match="this run is unconditional"):
        ConditioningResponse(classes=[0])(edm(UCLoRA(mlp=(8,))), None, Heun(2))
    for bad, says in (([3], r"0 \.\. 2"), ([], "at least one")):
        with pytest.raises(UserError, match=says):
            ConditioningResponse(classes=bad)(edm(ClassLoRA(), num_classes=3), None, Heun(2))
    with pytest.raises(UserError, match="no LoRA layers"):
        ConditioningResponse()(edm(num_classes=3), None, Heun(2))

"""The embedding that the adapters of a known model read is the one that the model itself computes."""

import pytest
import torch

import lorafusion as lf
from lorafusion.dropin.given import GivenEmbedding
from tests.dropin.networks import CALLS, MODELS, PRESETS, UC, close, labels, perturb, steps, trained, unet, x

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("classes", [None, 5])
def test_a_unet_lends_its_own_embedding(classes):
    model = unet(num_class_embeds=classes)
    handle = lf.drop_in(model, lf.UCLoRA(**UC), targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_unet)
    assert not any(isinstance(module, GivenEmbedding) for module in model.modules())
    seen = []
    block = model.down_blocks[0].resnets[0]  # its blocks are handed the embedding
    block.register_forward_pre_hook(lambda block, args: seen.append(args[1]))
    y = None if classes is None else labels()
    for t in (steps(), torch.tensor(7), 7, torch.tensor([0.25, 3.5, 900.0])):
        model(x(), t, y)
        cond = handle.make_cond(model, lf.Given(noise=t, label=y))
        close(cond.emb.expand(3, -1), seen.pop(), 1e-15)


def test_a_mixture_of_classes_mixes_their_embeddings():
    model = unet(num_class_embeds=5)
    embed = lf.read_cond.diffusers_unet.embed
    ones = [embed(model, lf.Given(noise=3, label=k)) for k in (1, 4)]
    mixed = embed(model, lf.Given(noise=3, label=torch.tensor([[0, 0.25, 0, 0, 0.75]])))
    close(mixed, 0.25 * ones[0] + 0.75 * ones[1])


def test_a_unet_asks_for_what_its_embedding_reads():
    model = unet(num_class_embeds=5)
    with pytest.raises(ValueError, match="no class_labels"):
        lf.read_cond.diffusers_unet.embed(model, lf.Given(noise=3))
    with pytest.raises(ValueError, match="no timestep"):
        lf.read_cond.diffusers_unet.embed(model, lf.Given(label=3))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategies", ["uc", "time", "class", "all"])
def test_a_batch_is_each_sample_alone(model, strategies):
    """Starts bit-identical, keeps the base's keys, and then conditions every sample by itself."""
    net, call = MODELS[model](), CALLS[model]
    keys, before = [*net.state_dict()], call(net)
    preset = PRESETS[model]
    if strategies in ("class", "all") and model != "dit":
        preset = {**preset, "read_cond": lambda c: lf.Given(noise=c["timestep"], label=labels()[: len(c["sample"])])}
        preset["num_classes"] = 5
    lf.drop_in(net, lf.TimeLoRA(2, 4), num_steps=1000, **preset).remove()
    handle = trained(lf.drop_in, net, strategies, **{"num_classes": None, **preset})
    assert [key for key in net.state_dict() if key in set(keys)] == keys
    for value in handle.parameters():
        assert value.dtype == torch.float64
    handle.scale = 0
    close(call(net), before, 1e-14)
    handle.scale = 1
    out = call(net)
    assert (out - before).abs().max() > 1e-5
    if strategies in ("uc", "time") or model == "dit":
        for b in range(3):
            close(call(net, slice(b, b + 1)), out[b : b + 1])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategies", ["uc", "time"])
def test_a_fresh_adapter_changes_no_bit(model, strategies):
    net, call = MODELS[model](), CALLS[model]
    before, shared = call(net), call(net, t=5)
    handle = lf.drop_in(net, perturb_none(strategies), num_steps=1000, **PRESETS[model])
    assert torch.equal(call(net), before)
    assert torch.equal(call(net, t=5), shared)
    perturb(handle)
    assert not torch.equal(call(net), before)


def perturb_none(strategies: str) -> list:
    return {"uc": [lf.UCLoRA(**UC)], "time": [lf.TimeLoRA(2, 4)]}[strategies]

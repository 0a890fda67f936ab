"""What a caller says of a condition, and our own embedding of it."""

import pytest
import torch

import lorafusion as lf
from lorafusion.backbones.embed import Sinusoidal
from tests.dropin.networks import UC, dit, labels, own, perturb, steps, text, unet, unet_condition, vit, x

pytestmark = pytest.mark.usefixtures("float64")


def test_numbers_become_rows():
    like = torch.zeros(1)
    cond = lf.Given(noise=7, label=2).cond(like, 5)
    assert cond.noise.tolist() == [7]
    assert cond.step is not None
    assert cond.step.tolist() == [7]
    assert cond.label is not None
    assert cond.label.tolist() == [[0, 0, 1, 0, 0]]
    assert lf.Given(noise=torch.tensor(0.5)).cond(like, None).step is None  # a level between steps is no step
    mixed = lf.Given(label=torch.tensor([[0.5, 0.5, 0, 0, 0]])).cond(like, 5)
    assert mixed.label is not None
    assert mixed.label.tolist() == [[0.5, 0.5, 0, 0, 0]]


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"label has 3 classes where drop_in was given num_classes=5"):
        lf.Given(label=torch.ones(1, 3)).cond(torch.zeros(1), 5)
    with pytest.raises(ValueError, match=r"the number of classes is not known: drop_in\(num_classes=...\)"):
        lf.Given(label=1).cond(torch.zeros(1), None)


@pytest.mark.parametrize(
    ("strategy", "missing"),
    [
        (lf.TimeLoRA(2, 4), "time_lora: the condition has no discrete step"),
        (lf.ClassLoRA(2), "class_lora: the condition has no label"),
        (lf.UCLoRA(**UC), "the call gives no noise"),
    ],
)
def test_a_missing_condition_is_named(strategy, missing):
    model = vit()
    handle = lf.drop_in(model, strategy, targets=lf.TIMM_ATTENTION, num_steps=1000, num_classes=5)
    with pytest.raises(RuntimeError, match=r"no condition: .* handle.given"):
        model(x())
    with pytest.raises(ValueError, match=missing), handle.given():
        model(x())
    said = pytest.raises(ValueError, match=r"the call gives no label|no discrete step|no label")
    with said, handle.given(noise=0.5):  # no step, no label
        model(x())


def test_a_text_is_read_and_asked_for():
    """Pooled text, in a model whose own embedding knows none."""
    model = unet_condition()

    def read(call):
        return lf.Given(noise=call["timestep"], text=call["encoder_hidden_states"].mean(1))

    perturb(lf.drop_in(model, lf.UCLoRA(**UC), targets=lf.SELF_ATTENTION, read_cond=read, text_width=6))
    q = model.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
    seen = []
    q.register_forward_hook(lambda layer, args, out: seen.append(out - torch.nn.functional.linear(*args, layer.weight)))
    for t in (text(), text().flip(0)):
        model(x(), steps(), t)
    assert (seen[0] - seen[1]).abs().max() > 1e-4
    model = unet()
    lf.drop_in(model, lf.UCLoRA(**UC), targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_unet, text_width=6)
    with pytest.raises(ValueError, match="the call gives no text"):
        model(x(), steps())


def test_our_embedding_is_the_waves_the_class_and_the_text():
    emb = own()[0].blocks[0].conv.adapters.default.embedding
    given = lf.Given(noise=steps(), label=labels())
    waves = Sinusoidal(256)(steps().double())
    h = waves @ emb.layer0.weight.T + emb.layer0.bias + emb.label.weight.T[labels()]
    h = torch.nn.functional.silu(h) @ emb.layer1.weight.T + emb.layer1.bias
    torch.testing.assert_close(emb(given, given.cond(waves, 5)), torch.nn.functional.silu(h))


def test_every_level_has_its_weights():
    """Continuous noise levels, given by hand to a model that is never told of them."""
    model = vit()
    handle = perturb(lf.drop_in(model, lf.UCLoRA(**UC), targets=lf.TIMM_ATTENTION, noise_scale=250))
    outs = []
    for level in (0.1, 0.11, torch.tensor([0.1, 0.11, 0.1])):
        with handle.given(noise=level):
            outs.append(model(x()))
    torch.testing.assert_close(outs[2][[0, 2]], outs[0][[0, 2]], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outs[2][1], outs[1][1], rtol=1e-12, atol=1e-12)
    assert (outs[0] - outs[1]).abs().max() > 1e-4


def test_the_null_class_of_guidance_is_a_class():
    model = dit()
    lf.drop_in(model, lf.ClassLoRA(2), targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_dit)
    model(x()[..., :4, :4], steps(), torch.tensor([0, 4, 5]))

"""Which layers are found, and what is said where none is."""

import pytest
from torch import nn

import lorafusion as lf
from lorafusion.dropin.targets import find
from tests.dropin.networks import EVERY, UC, dit, own, unet, unet_condition, vit


def names(model: nn.Module, targets: object) -> list[str]:
    return [name for name, _ in find(model, targets)]  # type: ignore[arg-type]


def test_presets_find_attention_and_nothing_else():
    for model, targets, attentions in (
        (unet(), lf.SELF_ATTENTION, 4),  # down 1, middle 1, up 2
        (unet_condition(), lf.SELF_ATTENTION, 4),
        (unet_condition(), lf.CROSS_ATTENTION, 4),
        (unet_condition(), lf.ALL_ATTENTION, 8),
        (dit(), lf.SELF_ATTENTION, 2),
    ):
        assert len(names(model, targets)) == 4 * attentions
    assert names(vit(), lf.TIMM_ATTENTION) == [f"blocks.{k}.attn.{layer}" for k in (0, 1) for layer in ("qkv", "proj")]
    self_names, cross_names = (names(unet_condition(), t) for t in (lf.SELF_ATTENTION, lf.CROSS_ATTENTION))
    assert all("attn1" in name for name in self_names)
    assert all("attn2" in name for name in cross_names)


def test_a_predicate_chooses():
    assert names(unet(), lambda name, module: isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    assert names(vit(), lambda name, module: name == "head") == ["head"]


def test_layers_that_drop_in_added_are_not_found():
    model, _ = own()
    assert names(model, ".") == [name for name, m in model.named_modules() if name.endswith(("conv", "dense"))]


@pytest.mark.parametrize("targets", [r"attention\.\d+\.to_q$", "to_qq", lambda name, module: False])
def test_no_match_lists_near_names(targets):
    near = r"near: .*(attentions\.\d+\.to_q|conv)"
    with pytest.raises(ValueError, match=near) as caught:
        lf.drop_in(unet(), lf.UCLoRA(**UC), targets=targets, read_cond=lf.read_cond.diffusers_unet)
    assert "\n" not in str(caught.value)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.conv = nn.MultiheadAttention(4, 2), nn.Conv2d(4, 4, 3, groups=2)
        self.layer, self.kind = nn.TransformerEncoderLayer(4, 2, 8), type("Other", (nn.Linear,), {})(4, 4)
        self.good = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("good|attn.out_proj", "MultiheadAttention"),
        ("good|conv", "2 groups"),
        ("good|linear1", "TransformerEncoderLayer"),
        ("good|kind", "not a plain torch"),
    ],
)
def test_a_layer_that_cannot_be_updated_is_refused_and_the_model_stays(targets, said):
    model = Odd()
    before = [(name, type(m)) for name, m in model.named_modules()]
    with pytest.raises(ValueError, match=said):
        lf.drop_in(model, lf.UCLoRA(**UC), targets=targets)
    assert [(name, type(m)) for name, m in model.named_modules()] == before
    assert not lf.handles(model)


def test_a_second_handle_of_one_name_is_refused():
    model, _ = own()
    with pytest.raises(ValueError, match="there is such a handle already"):
        lf.drop_in(model, lf.UCLoRA(**UC), targets=EVERY)
    with pytest.raises(ValueError, match="not an identifier"):
        lf.drop_in(model, lf.UCLoRA(**UC), targets=EVERY, name="a.b")

"""Weights into networks: the layout is told by the names, and every key is accounted for."""

import pytest
import torch

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.backbones.iddpm import IDDPMUNet
from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.ada_ln import AdaLN
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.convert.fill import fill
from lorafusion.errors import UserError
from tests.golden.reference import edm_net, iddpm_net, reference

LORA = UCLoRA(num_bases=3, mlp=(16, 8))


def nano_net(conv=(), attn=()):
    return Conditioning(conv, attn).attach(NanoUNet(32, 1, widths=[4, 4, 4], attn_resolutions=[8, 4]))


def edm_with(*attn):
    net = DDPMpp(16, 3, 16, (2, 2), 2, (8,), augment_dim=9, num_classes=10)
    return Conditioning([Shift()], attn).attach(net)


def test_the_three_layouts_and_our_own_are_told_apart():
    for name, made in (("edm_uclora", edm_net), ("iddpm_cond", iddpm_net), ("edm_uncond", edm_net)):
        ref = reference(name)
        expected, net = made(ref).state_dict(), made(ref)
        for weights in (ref.weights(), expected):
            torch.nn.init.zeros_(net.out_conv.weight)
            assert fill(net, weights, source="a") == []
            assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())
    net = Conditioning([Shift()]).attach(NanoUNet(32, 1, attn_resolutions=[]))
    weights = reference("nano").weights()
    fill(net, weights, source="a")
    assert torch.equal(net.out.weight, weights["conv_out.weight"])


@pytest.mark.parametrize(("attn", "kind"), [(LORA, "updates.uc_lora"), (AdaLN(), "attn.norm.")], ids=["uc_lora", "ada"])
def test_a_base_under_new_conditioning(attn, kind):
    """The base is loaded, what the conditioning adds keeps its init, and the network computes what the base does."""
    ref = reference("edm_cond_augment")
    base, net = edm_net(ref), edm_with(attn).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError, match=r"base.pkl: .* missing"):
        fill(net, ref.weights(), source="base.pkl")
    fresh = fill(net, ref.weights(), source="base.pkl", base=True)
    assert fresh == [key for key in before if key not in base.state_dict()]
    assert all(kind in key for key in fresh)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key] if key in fresh else base.state_dict()[key]), key
    x, noise, label = torch.randn(2, 3, 16, 16), torch.tensor([0.3, -0.5]), torch.eye(10)[:2]
    with torch.no_grad():
        assert torch.equal(net(x, noise, label=label), base(x, noise, label=label))


def test_a_base_without_any_conditioning_under_all_of_it():
    base, net = nano_net(), nano_net([Shift()], [LORA])
    fresh = fill(net, base.state_dict(), source="base", base=True)
    assert {*fresh} == {*net.state_dict()} - {*base.state_dict()}


@pytest.mark.parametrize("lost", ["updates.uc_lora.up", "norm_in.affine.0.weight"])
def test_an_addition_is_there_as_a_whole_or_not_at_all(lost):
    """A file that has lost one tensor of its LoRA, or of its shifts, is broken: it is no base."""
    net = nano_net([Shift()], [LORA])
    state = net.state_dict()
    key = next(key for key in state if key.endswith(lost))
    del state[key]
    with pytest.raises(UserError, match=f"1 missing: {key}"):
        fill(net, state, source="a.safetensors", base=True)


def test_what_the_network_has_no_place_for_is_named():
    with pytest.raises(UserError, match=r"unexpected: .*updates\.uc_lora"):
        fill(nano_net([Shift()]), nano_net([Shift()], [LORA]).state_dict(), source="a", base=True)


@pytest.mark.parametrize(
    ("name", "net", "said"),
    [
        ("edm_uncond", lambda: IDDPMUNet(32, 3, 32, (1, 2), 1, [16]), "EDM's weights fit a DDPMpp, not a IDDPMUNet"),
        ("iddpm_cond", lambda: edm_with(), "improved-diffusion's weights fit a IDDPMUNet, not a DDPMpp"),
        ("nano", lambda: edm_with(), "dataflowr's weights fit a NanoUNet, not a DDPMpp"),
    ],
)
def test_another_architecture_is_refused_with_the_first_keys_of_both(name, net, said):
    net = net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    weights = reference(name).weights()
    with pytest.raises(UserError, match=f"^a.pkl: {said}: it holds .*; ours are conv_in.weight") as error:
        fill(net, weights, source="a.pkl")
    assert "\n" not in str(error.value)
    assert any(key in str(error.value) for key in weights)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_another_size_is_refused_with_the_first_keys_that_differ():
    net = Conditioning([ScaleShift()]).attach(IDDPMUNet(16, 3, 64, (1, 2), 1, [8], 4))
    with pytest.raises(UserError, match=r"a.pt: .* of another shape: .*\[32, 3, 3, 3\] for \[64, 3, 3, 3\]"):
        fill(net, reference("iddpm_uncond").weights(), source="a.pt", base=True)

"""The key map from dataflowr's names: every key has its place, and what is left over or lacking is named."""

import pytest
import torch

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.convert.keys import load
from lorafusion.convert.nano import nano
from lorafusion.errors import UserError
from tests.golden.reference import reference


def _net(**parameters):
    return Conditioning(conv=[Shift()]).attach(NanoUNet(32, 1, **{"attn_resolutions": []} | parameters))


def test_every_key_goes_to_one_place():
    net, theirs = _net(), reference("nano").weights()
    ours = nano(theirs, net)
    assert ours.keys() == net.state_dict().keys()
    assert len(ours) == len(theirs) - 1  # without the time table
    assert {id(value) for value in ours.values()} == {id(v) for k, v in theirs.items() if k != "time_embed.weight"}


def test_an_unknown_key_is_named():
    weights = reference("nano").weights() | {"b6.0.ln.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"^nano weights: 1 keys have no place in this network: b6\.0\.ln\.weight$"):
        nano(weights, _net())


def test_a_missing_key_is_named():
    net, weights = _net(), reference("nano").weights()
    del weights["b1.1.ln.bias"]
    with pytest.raises(UserError, match=r"^here: .* NanoUNet .*: 1 missing: enc\.0\.norms\.0\.bias$"):
        load(net, nano(weights, net), source="here")


def test_a_network_of_other_width_is_refused():
    net = _net(widths=[12, 20, 40])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError, match=r"of another shape: .*\[10, 32, 32\] for \[12, 32, 32\]"):
        load(net, nano(reference("nano").weights(), net), source="here")
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_a_network_with_attention_lacks_its_weights():
    net = _net(attn_resolutions=[8])
    with pytest.raises(UserError, match=r"12 missing: enc\.2\.attn\.norm\.weight, enc\.2\.attn\.norm\.bias, "):
        load(net, nano(reference("nano").weights(), net), source="here")

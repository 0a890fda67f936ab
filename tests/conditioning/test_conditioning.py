"""The walk that attaches strategies: which sites, what the network must have, device and dtype."""

import pytest
import torch

from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn.ada_ln import AdaLN
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.conditioning.conv.scale_shift import ScaleShift
from lorafusion.conditioning.conv.shift import Shift
from tests.cases import backbones, cases
from tests.contract import updates


def _nano(**parameters):
    return NanoUNet(**{"resolution": 8, "attn_resolutions": [4], "widths": [4, 6, 8]} | parameters)


class Recorder:
    """A strategy that only notes where it is asked to attach."""

    def __init__(self, needs_emb=False):
        self.needs_emb, self.names = needs_emb, []

    def attach(self, site):
        self.names.append(site.name)


def test_a_strategy_visits_every_site_of_its_kind():
    conv, attn = Recorder(), Recorder()
    net = _nano()
    assert Conditioning([conv], {"any_name": attn}).attach(net) is net
    stages = ["enc.0", "enc.1", "enc.2", "mid", "dec.0", "dec.1", "dec.2"]
    assert conv.names == [f"{stage}.conv" for stage in stages]
    assert attn.names == ["enc.1.attn", "dec.1.attn"]


def test_no_strategy_changes_nothing():
    net = _nano()
    names = [*net.state_dict()]
    Conditioning().attach(net)
    assert [*net.state_dict()] == names


def test_the_embedding_is_built_only_if_something_reads_it():
    assert Conditioning(attn=[Recorder()]).attach(_nano()).noise_embed is None
    assert Conditioning(attn=[Recorder(needs_emb=True)]).attach(_nano()).noise_embed is not None


def test_a_strategy_without_a_place_is_refused_not_left_out():
    with pytest.raises(ValueError, match="Recorder finds no AttnSite"):
        Conditioning(attn=[Recorder()]).attach(_nano(attn_resolutions=[]))


@pytest.mark.parametrize("backbone", backbones())
def test_what_a_network_lacks(backbone):
    case = next(case for case in cases("attn") if case.backbone == backbone)
    with pytest.raises(ValueError, match=r"^time_lora reads a discrete timestep and this process is continuous"):
        Conditioning(attn=[TimeLoRA()]).attach(case.build(num_steps=None))
    with pytest.raises(ValueError, match=r"^class_lora reads a class label and this network has none"):
        Conditioning(attn=[ClassLoRA()]).attach(case.build(num_classes=None))


def test_two_strategies_cannot_share_a_slot():
    with pytest.raises(ValueError, match=r"^enc.1.attn: slot 'norm_out' is already taken by EmbScaleShift"):
        Conditioning(attn=[AdaLN(), AdaLN()]).attach(_nano())
    with pytest.raises(ValueError, match=r"^enc.1.attn: 'qkv' already has an update named 'uc_lora'"):
        Conditioning(attn=[UCLoRA(), UCLoRA()]).attach(_nano())


def test_what_is_attached_follows_the_networks_dtype():
    net = _nano(num_steps=9, num_classes=3).double()
    Conditioning([Shift(), ScaleShift()], [UCLoRA(), AdaLN(gate=True), TimeLoRA(), ClassLoRA()]).attach(net)
    x, label = torch.randn(2, 1, 8, 8).double(), torch.eye(3).double()[:2]
    assert net(x, torch.zeros(2).double(), torch.tensor([0, 8]), label).dtype == torch.float64


def test_zero_bases_are_refused_not_replaced():
    with pytest.raises(ValueError, match=r"^class_lora: num_bases must be at least 1$"):
        Conditioning(attn=[ClassLoRA(compositional=True, num_bases=0)]).attach(_nano(num_classes=3))


def test_time_and_class_lora_are_two_updates_of_each_layer():
    net = Conditioning(attn=[TimeLoRA(num_bases=3), ClassLoRA()]).attach(_nano(num_steps=9, num_classes=3))
    assert [update.num_bases for update in updates(net)] == [3, 3] * 4
    assert [*net.enc[1].attn.qkv.updates] == [*net.dec[1].attn.proj.updates] == ["time_lora", "class_lora"]

"""omega is what the network computes in a whole forward pass, in every network, of strategies that nobody named."""

import pytest
import torch
from torch import nn

from lorafusion.analysis.layers import conditions, layers_of, omegas, updates_of
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.denoisers.base import in_its_dtype
from lorafusion.errors import UserError
from lorafusion.lora import LowRank, add_update
from lorafusion.processes.ddpm import DDPM
from lorafusion.processes.iddpm import IDDPM
from tests.analysis.denoisers import moved, nano
from tests.cases import together


@pytest.mark.parametrize("case", together(), ids=lambda case: case.backbone)
def test_omegas_are_those_of_a_whole_forward_pass(case):
    """Of all layers, whatever several strategies add to them; also where the rows come in several parts."""
    denoiser = nano(TimeLoRA())
    denoiser.net = case.trained()
    learned = getattr(denoiser.net, "learned_variance", None) or "iddpm" in case.backbone
    denoiser.process = IDDPM(denoiser.net.num_steps) if learned else DDPM(denoiser.net.num_steps)
    sigma = denoiser.process.sigmas.repeat(3)
    label = torch.randn(len(sigma), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = omegas(denoiser, sigma, label)

    seen = {}
    updates = updates_of(denoiser.net)
    for name, update in updates.items():
        update.omega.register_forward_hook(lambda m, given, out, name=name: seen.setdefault(name, out))
    shape = (denoiser.net.channels, denoiser.net.resolution, denoiser.net.resolution)
    with torch.no_grad():
        denoiser.process.denoise(in_its_dtype(denoiser.net), torch.randn(len(sigma), *shape).double(), sigma, label)
    assert [*found] == [*seen]
    assert len(found) == 3 * 2 * len({name.rpartition(".")[0] for name in layers_of(denoiser.net)})
    for name, omega in seen.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), omega.double(), rtol=1e-12, atol=1e-12)
    for update in updates.values():
        update.omega._forward_hooks.clear()  # the network is kept and shared


def test_nothing_is_left_in_the_network():
    denoiser = nano(TimeLoRA())
    before = [len(m._forward_pre_hooks) for m in denoiser.net.modules()]
    assert [c.step.tolist() for c in conditions(denoiser, denoiser.process.sigmas, None)] == [
        [*range(32)],
        [*range(32, 40)],
    ]
    assert [len(m._forward_pre_hooks) for m in denoiser.net.modules()] == before


class OfTheUsers:
    """A strategy that the package does not know: omega is (noise, noise^2), of the output layers alone."""

    needs_emb = False

    def attach(self, site):
        dense = site.dense("proj")
        add_update(
            site, "proj", "mine", LowRank(dense.in_features, dense.out_features, rank=1, num_bases=2, omega=Own())
        )


class Own(nn.Module):
    def forward(self, cond):
        return torch.stack((cond.noise, cond.noise**2), dim=1)


def test_a_strategy_of_the_users_own():
    denoiser = moved(nano(OfTheUsers()))
    found = omegas(denoiser, denoiser.process.sigmas[:3], None)
    assert {*found} == {f"{stage}.attn.proj" for stage in ("enc.1", "enc.2", "dec.0", "dec.1")}
    assert found["dec.0.attn.proj"].tolist() == [[0, 0], [1, 1], [2, 4]]


def test_updates_of_several_names_are_told_apart():
    assert [*updates_of(nano(TimeLoRA(), ClassLoRA(), num_classes=3).net)][:2] == [
        "enc.1.attn.qkv time_lora",
        "enc.1.attn.qkv class_lora",
    ]


def test_a_network_without_lora_is_refused():
    with pytest.raises(UserError, match="no LoRA layers"):
        layers_of(nano().net)

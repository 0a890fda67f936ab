"""The contract catches what it is there to catch: each seeded mistake fails the check that is meant for it."""

import copy

import pytest
import torch
from torch import nn

from lorafusion import lora
from lorafusion.backbones.nano import NanoUNet
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.attn import time_lora
from lorafusion.sites import LayerNorm, Site
from tests import cases, contract
from tests.cases import Case

UC = Case("nano", attn=("uc_lora",), form=(("bias", True), ("scale", "learned")))
TIME = Case("nano", attn=("time_lora",))
EVERY_STEP = Case("nano", attn=("time_lora",), form=(("compositional", False),))
SHIFT = Case("nano", conv=("shift",))
MUTATIONS = []


def mutation(check, *args):
    """Registers a mistake, made by ``mistake(monkeypatch)``, that ``check(*args)`` has to catch."""

    def register(mistake):
        MUTATIONS.append(pytest.param(mistake, check, args, id=f"{mistake.__name__}-{check.__name__}"))
        return mistake

    return register


@pytest.mark.parametrize(("mistake", "check", "args"), MUTATIONS)
def test_mutation_is_caught(mistake, check, args, monkeypatch):
    cases.forget()
    check(*args)
    mistake(monkeypatch)
    cases.forget()
    try:
        with pytest.raises(AssertionError):
            check(*args)
    finally:
        cases.forget()


@mutation(contract.check_no_leak, UC)
@mutation(contract.check_factored_is_dense, UC)
def batch_averaged_omega(monkeypatch):
    gate = lora.LowRank.gate

    def averaged(self, omega):
        return gate(self, omega.mean(0, keepdim=True).expand_as(omega))

    monkeypatch.setattr(lora.LowRank, "gate", averaged)


@mutation(contract.check_no_leak, SHIFT)
def batch_averaged_embedding(monkeypatch):
    embed = NanoUNet.embed

    def averaged(self, noise, label):
        emb = embed(self, noise, label)
        assert emb is not None
        return emb.mean(0, keepdim=True).expand_as(emb)

    monkeypatch.setattr(NanoUNet, "embed", averaged)


@mutation(contract.check_identity_at_init, UC)
@mutation(contract.check_identity_at_init, EVERY_STEP)
def missing_zero_init_of_b(monkeypatch):
    init = lora.LowRank.__init__

    def random(self, *args, **kwargs):
        init(self, *args, **kwargs)
        nn.init.normal_(self.up, std=1e-3)

    monkeypatch.setattr(lora.LowRank, "__init__", random)


@mutation(contract.check_identity_at_init, Case("nano", attn=("ada_ln",)))
def missing_zero_init_of_ada_ln(monkeypatch):
    monkeypatch.setattr("lorafusion.conditioning.attn.ada_ln.zeroed", lambda layer: layer)


@mutation(contract.check_factored_is_dense, UC)
def transposed_b(monkeypatch):
    def factored(self, x, omega):
        gate = self.gate(omega)
        y = (x @ self.down.T * gate[:, None]) @ self.up.reshape(self.up.shape[1], self.up.shape[0])
        return y + (gate @ self.bias)[:, None]

    monkeypatch.setattr(lora.LowRank, "factored", factored)


@mutation(contract.check_factored_is_dense, TIME)
def omega_repeated_in_the_wrong_order(monkeypatch):
    monkeypatch.setattr(lora.LowRank, "gate", lambda self, omega: omega.repeat(1, self.rank))


@mutation(contract.check_factored_is_dense, UC)
def scale_left_out_of_the_composed_bias(monkeypatch):
    def factored(self, x, omega):
        omega = omega.repeat_interleave(self.rank, dim=1)
        return x @ self.down.T * (self.scale * omega)[:, None] @ self.up.T + (omega @ self.bias)[:, None]

    monkeypatch.setattr(lora.LowRank, "factored", factored)


@mutation(contract.check_factored_is_dense, EVERY_STEP)
def the_next_steps_lora(monkeypatch):
    def factored(self, x, omega):
        index = (omega + 1) % self.num_bases
        down = self.down.unflatten(0, (-1, self.rank))[index]  # (B, r, d_in)
        up = self.up.unflatten(1, (-1, self.rank))[:, index]  # (d_out, B, r)
        return torch.einsum("bni,bri,obr->bno", x, down, up)

    monkeypatch.setattr(lora.SelectedLowRank, "factored", factored)


@mutation(contract.check_linear_init, 21, 5)
def knots_off_by_one_row(monkeypatch):
    knots = lora.linear_knots
    monkeypatch.setattr(time_lora, "linear_knots", lambda steps, bases: knots(steps + 1, bases)[1:])


@mutation(contract.check_linear_init, 21, 5)
def knots_spread_over_0_to_t(monkeypatch):
    knots = lora.linear_knots
    monkeypatch.setattr(time_lora, "linear_knots", lambda steps, bases: knots(steps + 1, bases)[:-1])


@mutation(contract.check_gradients, UC)
def omega_detached(monkeypatch):
    gate = lora.LowRank.gate
    monkeypatch.setattr(lora.LowRank, "gate", lambda self, omega: gate(self, omega).detach())


@mutation(contract.check_keys, UC)
def base_weight_moved(monkeypatch):
    def wrapped(self, dense):
        nn.Module.__init__(self)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.base, self.updates = dense, nn.ModuleDict()

    monkeypatch.setattr(lora.LoRALinear, "__init__", wrapped)
    monkeypatch.setattr(lora.LoRALinear, "weight", property(lambda self: self.base.weight), raising=False)


@mutation(contract.check_loading, UC)
def base_weight_copied_to_its_init(monkeypatch):
    init = lora.LoRALinear.__init__

    def reset(self, dense):
        init(self, dense)
        self.weight = nn.Parameter(torch.zeros_like(dense.weight))

    monkeypatch.setattr(lora.LoRALinear, "__init__", reset)


@mutation(contract.check_compiles, TIME)
def a_branch_on_the_data(monkeypatch):
    factored = lora.LowRank.factored

    def branching(self, x, omega):
        return factored(self, x, omega) if omega[0, 0].item() < 99 else x

    monkeypatch.setattr(lora.LowRank, "factored", branching)


@mutation(contract.check_compiles, TIME)
def a_number_that_each_forward_changes(monkeypatch):
    forward = NanoUNet.forward

    def counting(self, x, *args, **kwargs):
        self.calls = getattr(self, "calls", 1) + 1
        return forward(self, x * (self.calls / self.calls), *args, **kwargs)

    monkeypatch.setattr(NanoUNet, "forward", counting)


@mutation(contract.check_shared_condition, UC)
def composed_bias_left_out_of_the_merged_weight(monkeypatch):
    merge = lora.LowRank.merge
    monkeypatch.setattr(lora.LowRank, "merge", lambda self, w, b, omega: (merge(self, w, b, omega)[0], b))


@mutation(contract.check_deepcopy, UC)
def a_copy_that_shares(monkeypatch):
    monkeypatch.setattr(lora.LowRank, "__deepcopy__", lambda self, memo: copy.copy(self), raising=False)


@mutation(contract.check_slots, SHIFT)
def a_second_strategy_replaces_the_first(monkeypatch):
    monkeypatch.setattr(Site, "fill", lambda self, slot, module: self.__setitem__(slot, module))


@mutation(contract.check_slots, SHIFT)
def a_declared_slot_is_not_called(monkeypatch):
    monkeypatch.setattr(LayerNorm, "forward", lambda self, x, cond: nn.LayerNorm.forward(self, self.norm_in(x, cond)))


@mutation(contract.check_gradients, TIME)
def a_strategy_that_does_not_read_the_embedding_it_asks_for(monkeypatch):
    monkeypatch.setattr(time_lora.TimeLoRA, "needs_emb", True)


@mutation(contract.check_embedding, TIME)
def an_embedding_that_nothing_asks_for(monkeypatch):
    attach = Conditioning.attach

    def with_embedding(self, net):
        net.add_embedding()
        return attach(self, net)

    monkeypatch.setattr(Conditioning, "attach", with_embedding)

"""The contract: what every conditioning strategy promises in every network.

Plain functions that raise AssertionError, so that test_mutations.py can show that each fails where it should.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.testing import CompileCounter

from lorafusion.lora import LoRALinear, LowRank
from lorafusion.sites import Cond, Linear, Network, Same
from tests.cases import Case, float64, inputs, perturb
from tests.shapes import unchecked


def check_identity_at_init(case: Case) -> None:
    """Attaching to the attention of a trained network changes no bit of its output (the gate's form excepted)."""
    base, net = case.base(), case.fresh()
    batch = inputs(net)
    assert torch.equal(net(**batch), base(**batch)), "a fresh strategy changes the output"


def check_factored_is_dense(case: Case) -> None:
    """The batch through the factored updates = each sample through a network with its own dense W(cond)."""
    net = case.trained()
    batch = inputs(net)
    cond = next(iter(conds(net, batch).values()))
    out = net(**batch)
    for b in range(3):
        dense = deepcopy(net)
        for name, layer in net.named_modules():
            if isinstance(layer, LoRALinear):
                dense.set_submodule(name, dense_layer(layer, _rows(cond, b)))
        assert not any(isinstance(m, LowRank) for m in dense.modules())
        same(out[b : b + 1], dense(**_rows(batch, b)))


def check_shared_condition(case: Case) -> None:
    """A condition of one row is the same row for every sample."""
    net = case.trained()
    batch = inputs(net)
    one = {k: v if k == "x" or v is None else v[:1] for k, v in batch.items()}
    every = {k: v if k == "x" or v is None else v[:1].expand(3, *v.shape[1:]) for k, v in batch.items()}
    same(net(**one), net(**every))
    noise = {k: v[:1] if k in ("noise", "step") and v is not None else v for k, v in batch.items()}
    same(net(**noise), net(**{k: v if noise[k] is v else v[:1].expand(3) for k, v in batch.items()}))


def dense_layer(layer: LoRALinear, cond: Cond) -> Linear:
    """W + sum_i omega_i B_i A_i and b + sum_i omega_i (rows of base i of the composed bias), by the paper's sum."""
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    for update in layer.updates.values():
        assert isinstance(update, LowRank)
        omega = update.omega(cond)[0]
        if omega.ndim == 0:  # the index of the only base
            omega = torch.eye(update.num_bases, dtype=weight.dtype)[omega]
        scale = 1.0 if update.scale is None else update.scale
        for i in range(update.num_bases):
            rows = slice(i * update.rank, (i + 1) * update.rank)
            weight += (scale * omega[i] * update.up[:, rows] @ update.down[rows]).detach()
            if update.bias is not None:
                bias += (scale * omega[i] * update.bias[rows].sum(0)).detach()
    dense = Linear(layer.in_features, layer.out_features, dtype=weight.dtype)
    dense.weight, dense.bias = nn.Parameter(weight), nn.Parameter(bias)
    return dense


def check_no_leak(case: Case) -> None:
    """A sample's output and gradients depend on its own condition alone, and they do depend on it."""
    net = case.trained()
    batch = inputs(net)
    out = net(**batch)
    for b in range(3):
        same(net(**_rows(batch, b)), out[b : b + 1])
    other = {k: v if k == "x" or v is None else torch.cat((v[2:], v[1:])) for k, v in batch.items()}
    changed = net(**other)
    assert torch.equal(changed[1:], out[1:]), "another sample's condition changes an output"
    assert (changed[0] - out[0]).abs().max() > 1e-6, "a sample's own condition changes nothing"
    here, there = ([g for _, g in _gradients(net, b, slice(1, None))] for b in (batch, other))
    assert not here[0][0].any(), "another sample's image reaches an output"
    same(here, there)


def check_gradients(case: Case) -> None:
    """Every parameter learns."""
    net = case.trained()
    for name, gradient in _gradients(net, inputs(net), slice(None)):
        assert gradient is not None, f"{name} gets no gradient"
        assert gradient.abs().max() > 1e-12, f"the gradient of {name} is zero"


def check_keys(case: Case) -> None:
    """Attaching renames no weight, and drops none, of the network."""
    base, net = case.base().state_dict(), case.fresh().state_dict()
    kept = {name: tuple(net[name].shape) for name in net if name in base}
    assert kept == {name: tuple(value.shape) for name, value in base.items()}, "attaching changed the base's keys"


def check_loading(case: Case) -> None:
    """The network's weights, loaded before or after attaching, give the same network."""
    with float64(seed=5):
        weights = perturb(case.build()).state_dict()
    before, after = case.build(), case.attach(case.build())
    before.load_state_dict(weights)
    before = case.attach(before)
    missing, unexpected = after.load_state_dict(weights, strict=False)
    assert not unexpected, f"not in the attached network: {unexpected}"
    assert not set(missing) & set(weights), f"not loaded: {missing}"
    same(before.state_dict(), after.state_dict())
    batch = inputs(before)
    assert torch.equal(before(**batch), after(**batch))


def check_compiles(case: Case) -> None:
    """One graph to train with and one for all noise levels of sampling; results, gradients and names are eager's."""
    net, compiled, graphs = case.trained(), deepcopy(case.trained()), CompileCounter()
    batch = inputs(net)
    levels = [{**batch, **{k: v[b : b + 1] for k, v in batch.items() if k in ("noise", "step")}} for b in range(3)]
    with unchecked():
        torch.compiler.reset()
        compiled.compile(fullgraph=True, dynamic=False, backend=graphs)
        try:
            same(
                [g for _, g in _gradients(compiled, batch, slice(None))],
                [g for _, g in _gradients(net, batch, slice(None))],
            )
            with torch.no_grad():
                for level in levels:
                    same(compiled.eval()(**level), net(**level))
        except TorchDynamoException as error:
            raise AssertionError(f"the graph breaks: {error}") from error
    assert graphs.frame_count == 2, f"compiled {graphs.frame_count} times"
    same(compiled.state_dict(), net.state_dict())


def check_deepcopy(case: Case) -> None:
    """A copy computes the same, shares no memory and goes its own way."""
    net = case.trained()
    batch = inputs(net)
    out, copy = net(**batch), deepcopy(net)
    assert torch.equal(copy(**batch), out), "a copy computes something else"
    shared = {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in copy.parameters()}
    assert not shared, "a copy shares parameters"
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(1.5)
    assert torch.equal(net(**batch), out), "changing the copy changes the network"
    assert not torch.allclose(copy(**batch), out), "the copy computes with the network's weights"


def check_slots(case: Case) -> None:
    """Each declared slot is called once, with the condition; a wrong name and a second strategy are refused."""
    net = case.fresh()
    sites = [*net.sites()]
    assert len({site.name for site in sites}) == len(sites), "two sites have one name"
    batch = inputs(net)
    for cond in conds(net, batch).values():
        assert cond is not None, "a declared slot is not called"
        assert cond.step is batch["step"]
        assert cond.label is batch["label"]
    _raises(KeyError, lambda: sites[0].fill("nowhere", Same()))
    _raises(ValueError, lambda: case.attach(deepcopy(net)))


def check_embedding(case: Case) -> None:
    """The shared embedding is there if, and only if, something attached reads it."""
    base, net = case.base(), case.fresh()
    reads = any(strategy.needs_emb for kind in case.strategies().values() for strategy in kind)
    in_slots = {id(p) for site in net.sites() for slot in site.slots for p in site[slot].parameters()}
    old = {name for name, _ in base.named_parameters()}
    outside = [name for name, p in net.named_parameters() if name not in old and id(p) not in in_slots]
    assert bool(outside) == reads, f"parameters outside the slots: {outside}; reads an embedding: {reads}"
    for cond in conds(net, inputs(net)).values():
        assert cond is not None
        assert (cond.emb is not None) == reads


def check_linear_init(num_steps: int, num_bases: int) -> None:
    """TimeLoRA's table starts as the paper's interpolation between knots spread evenly over t = 1..T."""
    case = Case("nano", attn=("time_lora",), form=(("num_bases", num_bases),))
    net = case.attach(case.build(num_steps=num_steps))
    t_ = [1 + i * (num_steps - 1) / (num_bases - 1) for i in range(num_bases)]
    want = torch.zeros(num_steps, num_bases, dtype=torch.float64)
    for t in range(1, num_steps + 1):
        i = max(k for k in range(num_bases - 1) if t_[k] <= t)
        want[t - 1, i] = (t_[i + 1] - t) / (t_[i + 1] - t_[i])
        want[t - 1, i + 1] = (t - t_[i]) / (t_[i + 1] - t_[i])
    for update in updates(net):
        same(update.omega.get_parameter("table").detach(), want)


def conds(net: Network, batch: Mapping[str, Any]) -> dict[str, Cond | None]:
    """What each slot of each site got in one forward; None where it was not called exactly once."""
    got: dict[str, list[Cond]] = {}
    hooks = []

    def watch(slot: nn.Module, calls: list[Cond]) -> None:
        hooks.append(slot.register_forward_pre_hook(lambda _, args: calls.append(args[1])))

    for site in net.sites():
        for slot in site.slots:
            watch(site[slot], got.setdefault(f"{site.name}.{slot}", []))
    net(**batch)
    for hook in hooks:
        hook.remove()
    return {name: calls[0] if len(calls) == 1 else None for name, calls in got.items()}


def updates(net: Network) -> list[LowRank]:
    return [m for m in net.modules() if isinstance(m, LowRank)]


def same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def _gradients(net: Network, batch: Mapping[str, Any], rows: slice) -> Iterator[tuple[str, Tensor]]:
    """Of a scalar of these samples' outputs, for the images and every parameter."""
    x = batch["x"].clone().requires_grad_()
    out = net(**{**batch, "x": x})
    weights = torch.linspace(-1, 2, out[0].numel(), dtype=out.dtype).view_as(out[0])
    names, leaves = zip(("x", x), *net.named_parameters(), strict=True)
    yield from zip(names, torch.autograd.grad((out[rows] * weights).sum(), leaves, allow_unused=True), strict=True)


def _rows(batch: Any, b: int) -> Any:
    """Sample b of a batch, or of its condition, as a batch of one."""
    if isinstance(batch, Cond):
        return replace(batch, **_rows({f.name: getattr(batch, f.name) for f in fields(batch) if f.init}, b))
    return {k: v if v is None else v[b : b + 1] for k, v in batch.items()}


def _raises(kind: type[Exception], call: Callable[[], Any]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__} was raised")

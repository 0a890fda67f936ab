"""Which condition a layer sees: that of its own forward pass, in the recomputation of a checkpointed block too.

The explicit form is the same model without checkpoints. Gradients are equal to its, or a RuntimeError is raised.
"""

import gc
import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import lorafusion as lf
from tests.dropin.networks import (
    EVERY,
    UC,
    close,
    gradients,
    labels,
    made,
    own,
    perturb,
    steps,
    trained,
    unet,
    vit,
    x,
)
from tests.dropin.networks import Own as OwnModel

pytestmark = pytest.mark.usefixtures("float64")
STRATEGIES = ["uc", "time", "time_of_each_step", "class", "all"]
CONDITIONS = [(steps(), labels()), (steps().flip(0), labels().flip(0)), (torch.tensor([3]), torch.tensor([1]))]


def loss_of(model, which: int) -> torch.Tensor:
    t, y = CONDITIONS[which]
    return (model(x() + which, t, y) * (1 + which)).square().sum()


def expected(strategies: str, *which: int) -> dict[str, torch.Tensor]:
    model, _ = own("plain", strategies)
    sum(loss_of(model, k) for k in which).backward()
    return gradients(model)


def same(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("strategies", STRATEGIES)
@pytest.mark.parametrize("how", ["non_reentrant", "nested"])
@pytest.mark.parametrize("which", [(0,), (0, 1, 2), (1, 0, 1)], ids=str)
def test_checkpointed_gradients_are_the_explicit_ones(how, strategies, which):
    """One forward, and several of different conditions before one backward."""
    model, _ = own(how, strategies)
    sum(loss_of(model, k) for k in which).backward()
    same(gradients(model), expected(strategies, *which))


def test_the_conditions_matter():
    """The tests above could not tell a wrong condition from a right one otherwise."""
    one, two = expected("uc", 0), expected("uc", 2)
    assert max((one[name] - two[name]).abs().max() for name in one) > 0.01


@pytest.mark.parametrize("strategies", STRATEGIES)
def test_backward_in_another_order(strategies):
    model, _ = own("non_reentrant", strategies)
    losses = [loss_of(model, k) for k in (0, 1, 2)]
    with torch.no_grad():
        loss_of(model, 0)
    for k in (1, 2, 0):
        losses[k].backward()
    same(gradients(model), expected(strategies, 0, 1, 2))


@pytest.mark.parametrize("strategies", ["uc", "time"])
def test_a_reentrant_checkpoint_is_refused_in_one_line(strategies):
    model, _ = own("reentrant", strategies)
    loss = (model((x() + 0).requires_grad_(), *CONDITIONS[0])).sum()
    with pytest.raises(RuntimeError, match=r"^a checkpointed block is recomputed .*use_reentrant=False[^\n]*$"):
        loss.backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_whole_model_may_be_checkpointed(reentrant):
    model, _ = own()
    start = x().requires_grad_()
    losses = [
        (checkpoint(model, start + k, *CONDITIONS[k], use_reentrant=reentrant) * (1 + k)).square().sum() for k in (0, 1)
    ]
    sum(losses).backward()
    same(gradients(model), expected("uc", 0, 1))


def given_twice(reentrant: bool) -> dict[str, torch.Tensor]:
    """A condition told by hand, and backward after the block that told it."""
    model = made(OwnModel)
    handle = trained(lf.drop_in, model, targets=EVERY)
    losses = []
    for k, (t, y) in enumerate(CONDITIONS[:2]):
        with handle.given(noise=t, label=y):
            start = (x() + k).requires_grad_()
            out = checkpoint(model, start, t, use_reentrant=reentrant)
            losses.append((out * (1 + k)).square().sum())
    with handle.given(noise=1, label=1):
        sum(losses).backward()
    return gradients(model)


def test_a_recomputed_model_has_the_condition_that_was_given():
    same(given_twice(False), expected("uc", 0, 1))
    with pytest.raises(RuntimeError, match=r"may have told its condition; use use_reentrant=False"):
        given_twice(True)


def test_a_hidden_tap_is_right_or_refused():
    """A loss on what a block gave, the model's output dropped: its graph is all that is left of the pass."""
    model, _ = own("non_reentrant")
    out = model(x(), *CONDITIONS[0])
    tap = model.taps[1].square().sum()
    model(x(), *CONDITIONS[1])
    tap.backward()  # while the output lives
    found, plain = gradients(model), own()[0]
    plain(x(), *CONDITIONS[0])
    plain.taps[1].square().sum().backward()
    same(found, gradients(plain))
    del out
    model(x(), *CONDITIONS[0])
    tap, model.taps = model.taps[1].square().sum(), []
    gc.collect()
    with pytest.raises(RuntimeError, match="keep its output"):
        tap.backward()


def test_a_failure_leaves_nothing_behind():
    model, handle = own()
    with pytest.raises(RuntimeError):
        model(x()[:, :, :2, :2].expand(3, 2, 2, 2), *CONDITIONS[0])  # of channels that no layer takes
    assert handle.ambient.now is None
    with pytest.raises(RuntimeError, match="outside its model's forward"):
        model.blocks[0](torch.randn(3, 2, 4, 4))
    same_as = own()[0]
    close(model(x(), *CONDITIONS[0]), same_as(x(), *CONDITIONS[0]))


def test_passes_are_forgotten_with_their_graphs():
    model, handle = own("non_reentrant")
    for k in range(5):
        loss_of(model, k % 3).backward()
    loss = loss_of(model, 0)
    assert len([ref for ref in handle.ambient.past if ref() is not None]) == 1
    model.taps.clear()
    del loss
    gc.collect()
    assert all(ref() is None for ref in handle.ambient.past)


def test_backward_within_the_next_forward():
    """A gradient that is asked for while another pass of the same model runs belongs to its own pass."""
    model, _ = own("non_reentrant")
    first = loss_of(model, 0)
    pending = [first]
    model.blocks[1].register_forward_pre_hook(lambda *_: pending.pop().backward() if pending else None)
    model(x(), *CONDITIONS[1])
    assert not pending
    same(gradients(model), expected("uc", 0))


def test_threads_are_refused():
    model, _ = own()
    said = []

    def other(*_: object) -> None:
        def run() -> None:
            try:
                model(x(), *CONDITIONS[1])
            except RuntimeError as error:
                said.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    model.blocks[0].register_forward_pre_hook(other)
    model(x(), *CONDITIONS[0])
    assert said == ["two threads run one model with a drop-in condition at once; give each its own copy"]


def test_recomputing_within_merged_is_refused():
    model, handle = own("non_reentrant")
    loss = loss_of(model, 0)
    with handle.merged(noise=2, label=1), pytest.raises(RuntimeError, match="call backward outside it"):
        loss.backward()


def test_diffusers_own_checkpointing():
    found = []
    for checkpointing in (False, True):
        model = unet().train()
        preset = {"targets": lf.SELF_ATTENTION, "read_cond": lf.read_cond.diffusers_unet, "num_classes": None}
        handle = trained(lf.drop_in, model, **preset)
        if checkpointing:
            model.enable_gradient_checkpointing()
        sum((model(x() + k, t).sample * (1 + k)).square().sum() for k, (t, _) in enumerate(CONDITIONS)).backward()
        found.append(gradients(model))
        assert len([*handle.parameters()]) == sum("uc_lora" in name for name in found[-1])
    same(found[1], found[0])


def test_timm_own_checkpointing():
    found = []
    for checkpointing in (False, True):
        model = vit().train()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(5)
        handle = perturb(lf.drop_in(model, lf.UCLoRA(**UC), targets=lf.TIMM_ATTENTION))
        losses = []
        for k, (t, _) in enumerate(CONDITIONS):
            with handle.given(noise=t):
                losses.append((model(x() + k) * (1 + k)).square().sum())
        sum(losses).backward()
        found.append(gradients(model))
    same(found[1], found[0])

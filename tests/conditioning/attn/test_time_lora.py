"""TimeLoRA: omega(t) is row t of a table that starts as the paper's interpolation, or one-hot(t)."""

import pytest
import torch

from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.lora import SelectedLowRank, linear_knots
from lorafusion.sites import Cond
from tests.conditioning.places import attention
from tests.contract import check_linear_init

pytestmark = pytest.mark.usefixtures("float64")


def _updates(num_steps, **parameters):
    _, site = attention(num_steps=num_steps)
    TimeLoRA(**parameters).attach(site)
    return [site[slot].updates["time_lora"] for slot in ("qkv", "proj")]


@pytest.mark.parametrize(("num_steps", "num_bases"), [(4001, 11), (1000, 11), (20, 3), (5, 5)])
def test_linear_init_is_the_papers_formula(num_steps, num_bases):
    check_linear_init(num_steps, num_bases)


def test_knots_of_the_paper():
    """T = 4001, m = 11: knots 1, 401, .., 4001, where one base stands alone; halfway between, two share."""
    table = linear_knots(4001, 11)
    for i in range(11):
        torch.testing.assert_close(table[400 * i], torch.eye(11)[i])  # row t - 1 holds step t
        if i < 10:
            torch.testing.assert_close(table[400 * i + 200], (torch.eye(11)[i] + torch.eye(11)[i + 1]) / 2)
    torch.testing.assert_close(table.sum(1), torch.ones(4001))
    assert (table >= 0).all()


def test_one_knot():
    assert torch.equal(linear_knots(7, 1), torch.ones(7, 1))


def test_random_init_has_rows_of_unit_length():
    torch.manual_seed(0)
    for update in _updates(4000, num_bases=11, init="random"):
        table = update.omega.table
        assert table.mean().abs() < 4 * (1 / 11 / table.numel()) ** 0.5
        assert table.square().sum(1).mean().item() == pytest.approx(1, abs=4 * (2 / 11 / 4000) ** 0.5)


def test_omega_is_the_row_of_the_step():
    step = torch.tensor([7, 0, 7, 19])
    for update in _updates(20, num_bases=3, init="random"):
        assert torch.equal(update.omega(Cond(step / 20, step)), update.omega.table[[7, 0, 7, 19]])


def test_without_bases_every_step_has_its_own_lora():
    """m = T: step t uses the r rows of A and the r columns of B that are its own, and moves no other."""
    x, step = torch.randn(2, 5, 8), torch.tensor([3, 17])
    for update in _updates(20, rank=2, compositional=False):
        assert isinstance(update, SelectedLowRank)
        assert update.num_bases == 20
        torch.nn.init.normal_(update.up)
        y = update(x, Cond(step / 20, step))
        for b, t in enumerate([3, 17]):
            rows = slice(2 * t, 2 * t + 2)
            torch.testing.assert_close(y[b], x[b] @ update.down[rows].T @ update.up[:, rows].T)
        y.sum().backward()
        assert update.down.grad.reshape(20, -1).abs().sum(1).nonzero().flatten().tolist() == [3, 17]


def test_refuses_a_continuous_process():
    with pytest.raises(ValueError, match=r"^time_lora reads a discrete timestep and this process is continuous; use"):
        _updates(None)


def test_refuses_a_condition_without_a_step():
    update = _updates(20)[0]
    with pytest.raises(ValueError, match=r"^time_lora: the condition has no discrete step$"):
        update(torch.randn(2, 5, 8), Cond(torch.zeros(2)))


def test_refuses_an_unknown_init():
    with pytest.raises(ValueError, match=r"^time_lora: init must be 'linear' or 'random'; got 'lienar'$"):
        TimeLoRA(init="lienar")  # pyright: ignore[reportArgumentType]

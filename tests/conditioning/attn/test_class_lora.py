"""ClassLoRA: omega(y) is the label vector itself, or label @ table."""

import pytest
import torch

from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.sites import Cond
from tests.conditioning.places import attention

pytestmark = pytest.mark.usefixtures("float64")


def _update(num_classes=4, **parameters):
    _, site = attention(num_classes=num_classes)
    ClassLoRA(rank=2, **parameters).attach(site)
    update = site["qkv"].updates["class_lora"]
    torch.nn.init.normal_(update.up)
    return update


def _cond(label):
    return Cond(torch.zeros(len(label)), label=label)


def test_a_class_has_its_own_lora():
    update, x = _update(), torch.randn(4, 5, 8)
    y = update(x, _cond(torch.eye(4)))
    for k in range(4):
        rows = slice(2 * k, 2 * k + 2)
        torch.testing.assert_close(y[k], x[k] @ update.down[rows].T @ update.up[:, rows].T)


@pytest.mark.parametrize("compositional", [False, True])
def test_a_mixture_of_classes_is_a_mixture_of_loras(compositional):
    """(1 - a) e_i + a e_j, -e_i and 2 e_i: the update is linear in the label, and none without one."""
    update, x = _update(compositional=compositional), torch.randn(1, 5, 8)
    e = torch.eye(4)
    i, j = update(x, _cond(e[:1])), update(x, _cond(e[3:]))
    torch.testing.assert_close(update(x, _cond(0.7 * e[:1] + 0.3 * e[3:])), 0.7 * i + 0.3 * j)
    torch.testing.assert_close(update(x, _cond(-e[:1])), -i)
    torch.testing.assert_close(update(x, _cond(2 * e[3:])), 2 * j)
    assert not update(x, _cond(0 * e[:1])).any()


def test_compositional_omega_is_a_row_of_the_table():
    torch.manual_seed(0)
    update = _update(num_classes=1000, compositional=True, num_bases=7)
    assert update.omega.table.shape == (1000, 7)
    label = torch.eye(1000)[[3, 999]]
    torch.testing.assert_close(update.omega(_cond(label)), update.omega.table[[3, 999]])
    assert update.omega.table.square().sum(1).mean().item() == pytest.approx(1, abs=4 * (2 / 7 / 1000) ** 0.5)
    assert _update(num_classes=4, compositional=True).num_bases == 4


def test_refuses_a_network_without_classes():
    with pytest.raises(ValueError, match=r"^class_lora reads a class label and this network has none; set"):
        _update(num_classes=None)


def test_refuses_a_condition_without_a_label():
    with pytest.raises(ValueError, match=r"^class_lora: the condition has no label$"):
        _update()(torch.randn(2, 5, 8), Cond(torch.zeros(2)))

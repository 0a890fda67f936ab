import pytest
import torch
from torch import nn

from lorafusion.convert.keys import load, qkv_rows
from lorafusion.errors import UserError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))


def test_load_fills_every_tensor():
    source, net = network(), network()
    load(net, source.state_dict(), source="here")
    for ours, theirs in zip(net.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("1.bias"), "1 missing: 1.bias"),
        (lambda s: s.update({"2.bias": torch.ones(1)}), "1 unexpected: 2.bias"),
        (lambda s: s.update({"0.weight": torch.ones(3, 5)}), r"1 of another shape: 0.weight \[3, 5\] for \[3, 2\]"),
    ],
)
def test_another_architecture_is_refused_in_one_line(change, said):
    net, state = network(), network().state_dict()
    change(state)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError, match=f"^some.pkl: .*Sequential.*{said}") as error:
        load(net, state, source="some.pkl")
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), "half loaded"


@pytest.mark.parametrize("fused", ["head q|k|v channel", "head channel q|k|v"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_qkv_rows(fused, heads):
    """Row by row, by what each row is."""
    d = 3
    fast = {
        "head q|k|v channel": lambda h, j, c: (h * 3 + j) * d + c,
        "head channel q|k|v": lambda h, j, c: (h * d + c) * 3 + j,
    }
    rows = torch.arange(3 * heads * d)
    ours = qkv_rows(rows, 0, heads=heads, fused=fused)
    for j in range(3):
        for h in range(heads):
            for c in range(d):
                assert ours[(j * heads + h) * d + c] == fast[fused](h, j, c)
    square = torch.arange(2.0)[:, None] * 100 + rows
    assert torch.equal(qkv_rows(square, 1, heads=heads, fused=fused)[1], 100 + ours.float())

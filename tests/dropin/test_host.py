"""A layer with updates computes with W + sum of omega_i B_i A_i, a dense weight of each sample's own."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import lorafusion as lf
from lorafusion.dropin.host import Adapter, Host
from lorafusion.lora import LowRank
from lorafusion.sites import Cond
from tests.dropin.networks import STRATEGIES, close, labels, made, read, steps, trained

pytestmark = pytest.mark.usefixtures("float64")
LAYERS = {
    "linear": lambda: nn.Linear(4, 5),
    "linear_without_bias": lambda: nn.Linear(4, 5, bias=False),
    "conv_1x1": lambda: nn.Conv2d(4, 5, 1),
    "conv_3x3": lambda: nn.Conv2d(4, 5, 3, padding=1),
    "conv_strided": lambda: nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "conv_dilated": lambda: nn.Conv2d(4, 5, 3, padding="same", dilation=2),
    "conv_reflect": lambda: nn.Conv2d(4, 5, 3, padding=(1, 2), padding_mode="reflect"),
    "conv_circular": lambda: nn.Conv2d(4, 5, 3, stride=2, padding=2, padding_mode="circular"),
    "conv_replicate": lambda: nn.Conv2d(4, 5, 4, padding="same", padding_mode="replicate"),
}


class One(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layer(x)


def dense(host: Host, cond: Cond) -> dict[str, Tensor]:
    """The paper's sum, base by base, for a condition of one row."""
    weight = host.weight.detach().flatten(1).clone()
    bias = torch.zeros(len(weight)) if host.bias is None else host.bias.detach().clone()
    for adapter in host.adapters.values():
        assert isinstance(adapter, Adapter)
        for update in adapter.updates.values():
            assert isinstance(update, LowRank)
            factor = 1.0 if update.scale is None else update.scale
            for i, omega in enumerate(update.mixture(cond)[0]):
                rows = slice(i * update.rank, (i + 1) * update.rank)
                weight += factor * omega * update.up[:, rows] @ update.down[rows]
                bias += 0 if update.bias is None else factor * omega * update.bias[rows].sum(0)
    return {"weight": weight.view_as(host.weight), "bias": bias}


def plain(host: Host) -> nn.Module:
    """The layer of torch's class, of the same geometry, with a bias."""
    if isinstance(host, nn.Linear):
        return nn.Linear(host.in_features, host.out_features)
    assert isinstance(host, nn.Conv2d)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    return nn.Conv2d(*(getattr(host, n) for n in names), padding_mode=host.padding_mode)  # type: ignore[call-arg]


@pytest.mark.parametrize("strategies", STRATEGIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_sample_has_its_own_dense_weight(layer, strategies):
    model = made(lambda: One(LAYERS[layer]()))
    x = torch.randn(3, 6, 4) if "linear" in layer else torch.randn(3, 4, 7, 6)
    before = model(x, steps())
    handle = lf.drop_in(model, STRATEGIES[strategies](), targets="layer", read_cond=read, num_steps=1000, num_classes=5)
    assert torch.equal(model(x, steps(), labels()), before)
    handle.remove()
    handle = trained(lf.drop_in, model, strategies, targets="layer", read_cond=read)
    out, host = model(x, steps(), labels()), model.layer
    with torch.no_grad():
        for b in range(3):
            rows = slice(b, b + 1)
            cond = handle.make_cond(model, lf.Given(noise=steps(rows), label=labels(rows)))
            expected = functional_call(plain(host), dense(host, cond), (x[rows],))
            close(out[rows], expected)
            close(model(x[rows], steps(rows), labels(rows)), expected)  # one row: merged into the weight
        close(model(x, steps(rows), labels(rows))[rows], expected)
    assert (out - before).abs().max() > 0.01


def test_a_linear_layer_takes_any_number_of_axes():
    model = made(lambda: One(nn.Linear(4, 5)))
    trained(lf.drop_in, model, targets="layer", read_cond=read)
    x = torch.randn(3, 2, 5, 4)
    close(model(x, steps(), labels()).flatten(1, 2), model(x.flatten(1, 2), steps(), labels()))
    close(model(x[:, 0, 0], steps(), labels()), model(x, steps(), labels())[:, 0, 0])


def test_a_batch_of_another_size_is_refused_in_one_line():
    model = made(lambda: One(nn.Linear(4, 5)))
    trained(lf.drop_in, model, targets="layer", read_cond=read)
    with pytest.raises(RuntimeError, match=r"^a layer gets a batch of 6 where the condition has 3 rows; [^\n]*$"):
        model(torch.randn(6, 4), steps(), labels())

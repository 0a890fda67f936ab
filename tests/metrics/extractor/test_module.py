"""A user's own network: what it is given, its weights, and what is said where it is none."""

import pytest
import torch

from lorafusion.errors import UserError
from lorafusion.metrics.extractor.module import Module
from tests.metrics.extractor.brightness import Brightness

HERE = "tests.metrics.extractor.brightness"
CPU = torch.device("cpu")


def loaded(**settings) -> Module:
    extractor = Module(**{"module": f"{HERE}.Brightness", **settings})
    extractor.load(CPU)
    return extractor


def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_is_given_floats_from_minus_1_to_1():
    features, logits = loaded()(images())
    expected = Brightness()(images().float() / 127.5 - 1)
    assert torch.equal(features, expected[0])
    assert logits is not None
    assert torch.equal(logits, expected[1])
    assert loaded(module=f"{HERE}.Features")(images()).logits is None


def test_takes_arguments_and_weights(tmp_path):
    torch.save(Brightness(3.0).state_dict(), tmp_path / "w.pt")
    twice, thrice = loaded(arguments={"gain": 2.0}), loaded(weights=str(tmp_path / "w.pt"))
    assert twice.net.gain == 2
    assert thrice.net.gain == 3
    assert not thrice.net.gain.requires_grad
    assert len({loaded().weights_sha256, twice.weights_sha256, thrice.weights_sha256}) == 3
    assert loaded().weights_sha256 == loaded().weights_sha256


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"module": None}, "should be a class of yours"),
        ({"module": "Brightness"}, "should be a class of yours"),
        ({"module": "no_such_package.Net"}, "cannot be imported"),
        ({"module": f"{HERE}.Nothing"}, "cannot be imported"),
        ({"module": f"{HERE}.NoModule"}, "no subclass of torch.nn.Module"),
        ({"weights": "/nowhere.pt"}, "there is no such file"),
    ],
)
def test_says_what_is_wrong(settings, reason):
    with pytest.raises(UserError, match=reason):
        loaded(**settings)


def test_weights_of_another_network(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="does not fit Brightness"):
        loaded(weights=str(tmp_path / "w.pt"))

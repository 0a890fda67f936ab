import pytest
import torch
from ema_pytorch import EMA as TheirEMA
from torch import nn

from lorafusion.ema import EMA


def test_agrees_with_ema_pytorch():
    torch.manual_seed(0)
    net = nn.Linear(7, 5).double()
    theirs = TheirEMA(net, beta=0.875, update_after_step=-1, update_every=1, inv_gamma=1e-9, power=1.0, min_value=0.875)
    theirs.update()  # its first update copies
    ours = EMA(net.parameters(), decay=0.875)  # exact in float32, which theirs computes it in
    for _ in range(20):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        theirs.update()
        ours.update(net.parameters(), images_seen=0, batch=1)
    for a, b in zip(ours.averages, theirs.ema_model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_half_life_is_in_images_whatever_the_batch():
    for batch in (1, 10, 50):
        ema = EMA([torch.ones(1, dtype=torch.float64)], halflife_images=100)
        for images in range(batch, 101, batch):
            ema.update([torch.zeros(1, dtype=torch.float64)], images, batch)
        torch.testing.assert_close(ema.averages[0].item(), 0.5)


def test_rampup_shortens_the_half_life_at_the_start():
    ema = EMA([torch.zeros(1)], halflife_images=1000, rampup=0.05)
    assert ema.beta(images_seen=200, batch=10) == 0.5 ** (10 / 10)  # 5 % of 200
    assert ema.beta(images_seen=10**6, batch=10) == 0.5 ** (10 / 1000)


def test_swap_twice_is_nothing():
    weight = nn.Parameter(torch.tensor([1.0]))
    ema = EMA([weight], decay=0.5)
    ema.averages[0].fill_(3.0)
    ema.swap([weight])
    assert (weight.item(), ema.averages[0].item()) == (3.0, 1.0)
    ema.swap([weight])
    assert (weight.item(), ema.averages[0].item()) == (1.0, 3.0)


@pytest.mark.parametrize("bad", [{}, {"decay": 0.9, "halflife_images": 5}, {"decay": 1.5}, {"halflife_images": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="ema"):
        EMA([torch.zeros(1)], **bad)

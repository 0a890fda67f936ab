"""Draws belong to images: the law of each, and what they do not depend on."""

import pytest
import torch
from scipy import stats

from lorafusion.draws import Draws


def test_a_draw_depends_on_seed_image_and_call_alone():
    whole, part = Draws(3, torch.arange(100)), Draws(3, torch.tensor([70, 7]))
    first, second = whole.normal(2, 5), whole.normal(2, 5)
    assert torch.equal(part.normal(2, 5), first[[70, 7]])
    assert torch.equal(part.normal(2, 5), second[[70, 7]])
    assert not torch.equal(first, second)
    assert not torch.equal(first, Draws(4, torch.arange(100)).normal(2, 5))


def test_seeds_may_be_any_int():
    values = [Draws(seed, torch.tensor([0])).uniform(1).item() for seed in (0, 1, -1, 2**63, 2**64 + 5)]
    assert len(set(values)) == 5


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lambda d: d.uniform(20), stats.uniform()),
        (lambda d: d.normal(20, dtype=torch.float64), stats.norm()),
        (lambda d: d.normal(19), stats.norm()),  # an odd number
    ],
)
def test_laws(draw, law):
    values = draw(Draws(0, torch.arange(20_000)))
    assert stats.kstest(values.flatten().double().numpy(), law.cdf).pvalue > 1e-3
    rows = torch.corrcoef(values.double().T) - torch.eye(values.shape[1])  # over images
    assert rows.abs().max() < 0.05
    columns = torch.corrcoef(values[:300].double().repeat(1, 1)) - torch.eye(300)  # over draws of one image
    assert columns.mean().abs() < 0.01


def test_neighbouring_images_and_seeds_are_independent():
    a, b, c = (Draws(s, torch.arange(i, i + 50_000)).normal(1)[:, 0] for s, i in ((0, 0), (0, 1), (1, 0)))
    for pair in (torch.stack((a, b)), torch.stack((a, c))):
        assert torch.corrcoef(pair)[0, 1].abs() < 0.02


def test_uniform_is_open_and_integers_cover_their_range():
    u = Draws(0, torch.arange(1_000_000)).uniform(1)
    assert u.min() > 0
    assert u.max() < 1
    k = Draws(0, torch.arange(70_000)).integers(7)
    assert stats.chisquare(torch.bincount(k, minlength=7).numpy()).pvalue > 1e-3
    assert k.max() == 6


def test_float32_and_float64_are_the_same_numbers():
    d32, d64 = (Draws(0, torch.arange(9)).normal(50, dtype=t) for t in (torch.float32, torch.float64))
    torch.testing.assert_close(d32.double(), d64, rtol=1e-4, atol=1e-5)

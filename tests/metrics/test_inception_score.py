"""Against torch-fidelity on the same logits, and where the score is known."""

import pytest
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from lorafusion.metrics.extractor.inception import Inception
from lorafusion.metrics.features import Seen
from lorafusion.metrics.inception_score import InceptionScore, inception_score


@pytest.mark.parametrize(("n", "splits"), [(500, 10), (103, 7), (20, 1)])
def test_is_torch_fidelitys(n, splits):
    logits = 3 * torch.randn(n, 40, generator=torch.Generator().manual_seed(0))
    expected = isc_features_to_metric(logits, splits)
    mean, std = inception_score(logits, splits)
    assert mean == pytest.approx(expected[KEY_METRIC_ISC_MEAN], rel=1e-10)
    assert std == pytest.approx(expected[KEY_METRIC_ISC_STD], abs=1e-9)


def test_sure_and_varied_answers_score_the_number_of_classes():
    logits = 2000 * torch.eye(8).repeat(10, 1)  # e^-2000 is 0: 0 log 0 counts as 0
    assert inception_score(logits, 1) == pytest.approx((8, 0))


def test_answers_that_are_all_alike_score_1():
    assert inception_score(torch.randn(8).repeat(50, 1), 5) == pytest.approx((1, 0), abs=1e-9)


def test_refusals():
    with pytest.raises(ValueError, match="inception_64 is none"):
        InceptionScore(Inception(layer=64)).compare(Seen(30))
    with pytest.raises(ValueError, match=r"splits=10: 1 \.\. 4"):
        InceptionScore(Inception()).compare(Seen(4, logits=torch.zeros(4, 2)))

"""Against torch-fidelity on the same features, and where the answer is known."""

import pytest
import torch
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from lorafusion.metrics import precision_recall as module
from lorafusion.metrics.extractor.inception import Inception
from lorafusion.metrics.features import Seen
from lorafusion.metrics.precision_recall import PrecisionRecall, precision_recall


def features(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_is_torch_fidelitys(scale, neighbours):
    a, b = features(400, 0, scale), features(300, 1)
    expected = prc_features_to_metric(a, b, prc_neighborhood=neighbours, save_cpu_ram=False, verbose=False)
    precision, recall = precision_recall(a, b, neighbours)
    assert precision == pytest.approx(expected[KEY_METRIC_PRECISION], abs=1e-6)
    assert recall == pytest.approx(expected[KEY_METRIC_RECALL], abs=1e-6)
    assert 0.05 < recall < precision if scale < 1 else recall > 0.05


def test_a_collapsed_set_is_precise_and_recalls_nothing():
    real = features(200, 0)
    collapsed = real[:1] + 1e-3 * features(200, 1)
    precision, recall = precision_recall(collapsed, real)
    assert precision == 1
    assert recall <= 2 / 200


def test_the_same_set_and_one_far_away():
    x = features(100, 0)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x + 100, x) == (0, 0)


def test_by_hand():
    """On a line: balls of the reference, k = 1, reach 1 from 0 and 1, and 2 from 3."""
    reference, samples = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[-1.5], [2.2], [5.0], [5.5]])
    assert precision_recall(samples, reference, 1)[0] == 0.5


def test_blocks_of_rows_change_nothing(monkeypatch):
    a, b = features(150, 0), features(130, 1)
    whole = precision_recall(a, b)
    monkeypatch.setattr(module, "ROWS", 32)
    assert precision_recall(a, b) == whole


def test_metric():
    a, b = features(30, 0), features(30, 1)
    found = PrecisionRecall(Inception()).compare(Seen(30, features=a), Seen(30, features=b))
    assert tuple(found.values()) == precision_recall(a, b)
    with pytest.raises(ValueError, match=r"neighbours=3: 1 \.\. 2"):
        precision_recall(a[:3], b)

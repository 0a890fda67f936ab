"""metric=kid: its numbers and its name."""

import pytest
import torch

from lorafusion.metrics.extractor.cifar_resnet import CifarResnet
from lorafusion.metrics.extractor.inception import Inception
from lorafusion.metrics.features import Seen
from lorafusion.metrics.kernel_distance import kernel_distance
from lorafusion.metrics.kid import KID


def test_compares_the_features_that_were_seen():
    a, b = torch.rand(2, 30, 8)
    metric = KID(Inception(), subsets=3, subset_size=20)
    mean, std = kernel_distance(a, b, subsets=3, subset_size=20)
    assert metric.compare(Seen(30, features=a), Seen(30, features=b)) == {"kid": mean, "std": std}
    assert metric.describe() == {"subsets": 3, "subset_size": 20}
    with pytest.raises(ValueError, match="subset_size=1000"):
        KID(Inception()).compare(Seen(30, features=a), Seen(30, features=b))


def test_is_called_kid_only_on_inceptions_features():
    assert KID(CifarResnet()).name == "kernel_distance_cifar_resnet"

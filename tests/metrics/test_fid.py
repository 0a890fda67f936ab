"""Against torch-fidelity and torchmetrics on the same features; halves of one set are near, noise is far."""

import pytest
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from lorafusion.metrics.extractor.cifar_resnet import CifarResnet
from lorafusion.metrics.extractor.inception import Inception
from lorafusion.metrics.features import Seen
from lorafusion.metrics.fid import FID
from lorafusion.metrics.moments import Moments
from lorafusion.metrics.statistics import Statistics


def features(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    draw, mixing = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(9)
    return (torch.randn(n, 48, generator=draw) @ torch.randn(48, 48, generator=mixing) / 7 + shift).relu()


def fid(a: torch.Tensor, b: torch.Tensor) -> float:
    seen = [Moments(48).add(x) for x in (a, b)]
    return FID(Inception()).compare(Seen(len(a), moments=seen[0]), seen[1])["fid"]


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_is_torch_fidelitys_and_torchmetrics(shift):
    a, b = features(600, 0, shift), features(500, 1)
    stats = [fid_features_to_statistics(x.double()) for x in (a, b)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID]
    others = _compute_fid(a.double().mean(0), a.double().T.cov(), b.double().mean(0), b.double().T.cov())
    assert fid(a, b) == pytest.approx(theirs, abs=1e-6)
    assert fid(a, b) == pytest.approx(others.item(), abs=1e-6)


def test_halves_are_near_and_noise_is_far():
    x = features(2000, 0)
    near = fid(x[:1000], x[1000:])
    assert 0 < near < 0.1 * fid(x[:1000], 2 * torch.rand(1000, 48))


def test_a_statistics_file_is_as_good_as_the_images():
    a, b = (Moments(48).add(features(100, seed)) for seed in (0, 1))
    kept, samples = Statistics(b.mean, b.covariance), Seen(100, moments=a)
    assert FID(Inception()).compare(samples, kept) == FID(Inception()).compare(samples, b)


def test_refuses_another_width():
    with pytest.raises(ValueError, match="reference has 8 features, inception 48"):
        FID(Inception()).compare(Seen(9, moments=Moments(48).add(features(9, 0))), Moments(8).add(torch.rand(9, 8)))


def test_is_called_fid_only_on_inceptions_features():
    assert FID(CifarResnet()).name == "frechet_distance_cifar_resnet"

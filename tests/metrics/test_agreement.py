"""From images to numbers with FID's whole network, 2048 features: ours against torch-fidelity and torchmetrics.

The weights are random, in the layout of the published file: what is equal for these is equal for those. A distance of N
images is one within the span of their features, which no isometry changes; the other libraries are asked there, for
their square roots of matrices of 2048 rows take minutes, and are inexact where these are singular.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from lorafusion.metrics.extractor.inception import Inception
from lorafusion.metrics.features import Seen, look
from lorafusion.metrics.fid import FID
from lorafusion.metrics.inception_score import InceptionScore
from lorafusion.metrics.kid import KID
from lorafusion.metrics.precision_recall import PrecisionRecall
from tests.metrics.extractor import random_inception
from tests.metrics.extractor.test_inception import images

N, BLOCK = 20, 10
CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return random_inception.write(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def pixels() -> tuple[Tensor, Tensor]:
    """Samples and real images: of two distributions."""
    return images(N, 0), images(N, 1) // 2 + 40


@pytest.fixture(scope="module")
def seen(file, pixels) -> tuple[Seen, Seen]:
    extractor = Inception(str(file), block=BLOCK)
    extractor.load(CPU)
    a, b = (look(extractor, x.numpy(), {"moments", "features", "logits"}, CPU) for x in pixels)
    return a, b


@pytest.fixture(scope="module")
def theirs(file, pixels) -> list[tuple[Tensor, Tensor]]:
    """torch-fidelity's features and logits of both sets."""
    names = ["2048", "logits_unbiased"]
    net = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=str(file))  # pyright: ignore
    parts = [[net(part) for part in x.split(BLOCK)] for x in pixels]
    return [(torch.cat([f for f, _ in some]), torch.cat([logits for _, logits in some])) for some in parts]


@pytest.fixture(scope="module")
def fid(seen) -> float:
    return FID(Inception()).compare(seen[0], seen[1].moments)["fid"]


def within_span(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2N) each: coordinates in the span of all rows."""
    basis = torch.linalg.qr(torch.cat((a, b)).double().T).Q
    return a.double() @ basis, b.double() @ basis


def test_fid_is_torch_fidelitys(fid, theirs):
    """1e-4, absolute, of a distance of 7."""
    stats = [fid_features_to_statistics(x) for x in within_span(theirs[0][0], theirs[1][0])]
    assert fid > 1
    assert fid == pytest.approx(fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID], abs=1e-4)


def test_fid_is_torchmetrics(fid, file, pixels):
    """Of the features that it takes itself, not antialiased, as its own function compares them."""
    net = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(file), antialias=False).inception
    a, b = within_span(*(torch.cat([net(part) for part in x.split(BLOCK)]) for x in pixels))
    assert fid == pytest.approx(_compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item(), abs=1e-4)


def test_kid_is_torch_fidelitys(seen, theirs):
    ours = KID(Inception(), subsets=5, subset_size=10).compare(*seen)
    expected = kid_features_to_metric(theirs[0][0], theirs[1][0], kid_subsets=5, kid_subset_size=10, verbose=False)
    assert ours["kid"] > 1e-3
    assert ours["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert ours["std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


def test_inception_score_is_torch_fidelitys(seen, theirs):
    ours = InceptionScore(Inception(), splits=2).compare(seen[0])
    expected = isc_features_to_metric(theirs[0][1], 2)
    assert ours["inception_score"] - 1 == pytest.approx(expected["inception_score_mean"] - 1, rel=1e-3)
    assert ours["std"] == pytest.approx(expected["inception_score_std"], rel=1e-3)


def test_precision_and_recall_are_torch_fidelitys(seen, theirs):
    ours = PrecisionRecall(Inception(), neighbours=3).compare(*seen)
    expected = prc_features_to_metric(theirs[0][0], theirs[1][0], prc_neighborhood=3, verbose=False)
    assert ours["precision"] == pytest.approx(expected["precision"], abs=1e-6)
    assert ours["recall"] == pytest.approx(expected["recall"], abs=1e-6)

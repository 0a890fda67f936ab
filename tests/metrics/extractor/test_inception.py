"""Against torch-fidelity's network and both libraries' FID, on the same images and weights."""

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from lorafusion.errors import UserError
from lorafusion.metrics.extractor.inception import FILE, Inception, resized
from lorafusion.metrics.features import look
from lorafusion.metrics.fid import FID
from tests.metrics.extractor import random_inception

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return random_inception.write(tmp_path_factory.mktemp("weights") / "inception.pth")


def loaded(file: Path, **settings) -> Inception:
    extractor = Inception(str(file), **settings)
    extractor.load(CPU)
    return extractor


def images(n: int, seed: int, side: int = 32) -> torch.Tensor:
    """Blobs of random contrast: not all alike, as noise is to a network."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=draw) * torch.rand(n, 1, 1, 1, generator=draw)
    fine = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    return (255 * (fine + 0.1 * torch.rand(n, 3, side, side, generator=draw)).clamp(0, 1)).byte()


@pytest.mark.parametrize("side", [16, 32, 50, 299, 320])
def test_resizing_is_torch_fidelitys_to_the_bit(side):
    x = images(2, 0, side)
    expected = interpolate_bilinear_2d_like_tensorflow1x(x.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resized(x), expected)


@pytest.mark.parametrize("layer", [64, 192, 768, 2048])
def test_features_and_logits_are_torch_fidelitys(file, layer):
    names = [str(layer), "logits_unbiased"] if layer == 2048 else [str(layer)]
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=str(file))  # pyright: ignore
    x = images(2, 0)
    found, expected = loaded(file, layer=layer)(x), theirs(x)
    assert expected[0].std(0).mean() > 1e-3  # images differ in them
    torch.testing.assert_close(found.features, expected[0], rtol=1e-4, atol=1e-5)
    if layer == 2048:
        assert found.logits is not None
        torch.testing.assert_close(found.logits, expected[1], rtol=1e-4, atol=1e-4)
    else:
        assert found.logits is None


@pytest.mark.slow
def test_fid_is_that_of_torch_fidelity_and_torchmetrics(file):
    """On 64 features, for which 70 images are enough; 1e-4, as promised."""
    a, b = images(70, 0), images(70, 1)
    b = b // 2 + 40  # another distribution
    extractor = loaded(file, layer=64, block=35)
    seen = [look(extractor, x.numpy(), {"moments"}, CPU) for x in (a, b)]
    assert seen[1].moments is not None
    ours = FID(extractor).compare(seen[0], seen[1].moments)["frechet_distance_inception_64"]
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["64"], feature_extractor_weights_path=str(file))  # pyright: ignore
    stats = [fid_features_to_statistics(torch.cat([theirs(part)[0] for part in x.split(35)])) for x in (a, b)]
    expected = fid_statistics_to_metric(stats[0], {k: v.astype(stats[0][k].dtype) for k, v in stats[1].items()}, False)
    metric = FrechetInceptionDistance(64, feature_extractor_weights_path=str(file), antialias=False)
    for x, real in ((a, True), (b, False)):
        for part in x.split(35):
            metric.update(part, real=real)
    assert ours > 0.01
    assert ours == pytest.approx(expected[KEY_METRIC_FID], abs=1e-4)
    assert ours == pytest.approx(metric.compute().item(), abs=1e-4)


def test_grey_is_three_equal_channels(file):
    x, extractor = images(2, 0)[:, :1], loaded(file, layer=64)
    assert torch.equal(extractor(x).features, extractor(x.repeat(1, 3, 1, 1)).features)


def test_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", partial(str, tmp_path))
    place = tmp_path / "checkpoints" / FILE
    with pytest.raises(UserError, match=rf"{place} is missing; fetch https://.*{FILE} and put it there, or give metri"):
        Inception().load(CPU)
    with pytest.raises(UserError, match=r"metric\.weights=/nowhere/w\.pth: there is no such file"):
        Inception("/nowhere/w.pth").load(CPU)


def test_takes_the_file_from_where_torch_hub_keeps_it(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", partial(str, tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / FILE).symlink_to(file)
    extractor = Inception(layer=64)
    extractor.load(CPU)
    assert extractor.published is False  # its sha256 is not that in the name


@dataclass
class Evil:
    marker: Path

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_refuses_other_files(tmp_path):
    bad, marker = tmp_path / "bad.pth", tmp_path / "ran"
    for content in (b"", b"no weights", pickle.dumps(Evil(marker))):
        bad.write_bytes(content)
        with pytest.raises(UserError, match="no file of weights"):
            loaded(bad)
    assert not marker.exists()
    torch.save({"x": torch.zeros(2)}, bad)
    with pytest.raises(UserError, match="not those of torch-fidelity's Inception"):
        loaded(bad)
    torch.save({"epoch": 3}, bad)
    with pytest.raises(UserError, match="tensors by their names"):
        loaded(bad)


def test_refuses_another_layer():
    with pytest.raises(ValueError, match="one of 64, 192, 768, 2048"):
        Inception(layer=100)


def test_is_called_fid_only_with_the_whole_network():
    assert FID(Inception()).name == "fid"
    assert FID(Inception(layer=768)).name == "frechet_distance_inception_768"


def test_numpy_images_of_any_number(file):
    """Five images in blocks of two: the last one is filled up, and leaves no trace."""
    x = images(5, 0).numpy()
    found = look(loaded(file, layer=64, block=2), x, {"features"}, CPU).features
    assert found is not None
    assert found.shape == (5, 64)
    one = loaded(file, layer=64)(torch.from_numpy(x)).features
    np.testing.assert_allclose(found, one, rtol=1e-5, atol=1e-6)

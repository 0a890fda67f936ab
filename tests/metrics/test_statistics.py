"""Statistics files: what they hold comes back, a mismatch is refused by its name, bare files cause a warning."""

import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lorafusion.errors import UserError
from lorafusion.metrics.statistics import About, Statistics, read

ABOUT = About(100, 32, 3, "cifar10 train", "ab12", "inception", "cd34", "bilinear")


def made(about: About = ABOUT) -> Statistics:
    mean, factor = torch.randn(5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    return Statistics(mean, factor @ factor.T, about)


def test_comes_back_to_the_bit_and_without_a_warning(tmp_path):
    file, statistics = tmp_path / "sub" / "s.npz", made()
    statistics.write(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(file)
    assert torch.equal(found.mean, statistics.mean)
    assert torch.equal(found.covariance, statistics.covariance)
    assert found.about == ABOUT
    assert [p.name for p in file.parent.iterdir()] == ["s.npz"]


def test_other_tools_read_it(tmp_path):
    statistics = made()
    statistics.write(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as content:
        np.testing.assert_array_equal(content["mu"], statistics.mean)
        np.testing.assert_array_equal(content["sigma"], statistics.covariance)


@pytest.mark.parametrize("key", asdict(ABOUT))
def test_a_mismatch_is_refused_by_its_name(key, tmp_path):
    other = replace(ABOUT, **{key: 7 if isinstance(getattr(ABOUT, key), int) else "other"})
    with pytest.raises(UserError, match=rf"s\.npz: {key} is {getattr(ABOUT, key)}, not (7|other)"):
        made().check(other, tmp_path / "s.npz")


def test_what_is_not_said_passes(tmp_path):
    made().check(About(resolution=32), tmp_path)
    made(About()).check(ABOUT, tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bare_files_of_edm_and_ttur_are_read_with_a_warning(dtype, tmp_path):
    mean, covariance = np.arange(4).astype(dtype), np.eye(4).astype(dtype)
    np.savez(tmp_path / "cifar10-32x32.npz", mu=mean, sigma=covariance)
    with pytest.warns(UserWarning, match=r"does not say its n, resolution, .*extractor"):
        found = read(tmp_path / "cifar10-32x32.npz")
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    np.testing.assert_array_equal(found.mean, mean)
    assert found.about == About()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"mu": np.zeros(4)}, "no .npz of mu and sigma"),
        ({"mu": np.array([{}] * 4), "sigma": np.eye(4)}, "no .npz of mu and sigma"),  # pickled
        ({"mu": np.zeros(4), "sigma": np.eye(3)}, "do not fit"),
        ({"mu": np.zeros((4, 1)), "sigma": np.eye(4)}, "do not fit"),
        ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "not finite"),
    ],
)
def test_refuses_what_is_none(content, reason, tmp_path):
    np.savez(tmp_path / "s.npz", **content)
    with pytest.raises(UserError, match=reason):
        read(tmp_path / "s.npz")


def test_refuses_damaged_and_missing_files(tmp_path):
    made().write(tmp_path / "s.npz")
    whole = (tmp_path / "s.npz").read_bytes()
    for part in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        (tmp_path / "s.npz").write_bytes(part)
        with pytest.raises(UserError, match=r"no \.npz of mu and sigma"):
            read(tmp_path / "s.npz")
    with pytest.raises(UserError, match=r"no \.npz of mu and sigma"):
        read(tmp_path / "gone.npz")

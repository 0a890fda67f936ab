"""The network against timm's of equal weights, all of it against torch-fidelity's, which is handed timm's network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from lorafusion.errors import UserError
from lorafusion.metrics.extractor import dinov2
from lorafusion.metrics.extractor.dinov2 import DINOv2, VisionTransformer
from lorafusion.metrics.features import look
from lorafusion.metrics.fid import FID
from tests.metrics.extractor.test_inception import images

timm = pytest.importorskip("timm")
CPU = torch.device("cpu")
WIDTH, BLOCKS = 128, 2


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(dinov2.VARIANTS, "s", (WIDTH, BLOCKS))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """In the published layout, its table of positions for 224 px, so that nobody resizes it."""
    net, draw = VisionTransformer(WIDTH, BLOCKS, 257), torch.Generator().manual_seed(0)
    state = {name: value.normal_(0, 0.1, generator=draw) for name, value in net.state_dict().items()}
    for name, value in state.items():
        if name.endswith(("gamma", "norm.weight", "norm1.weight", "norm2.weight")):
            value += 1
    path = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    torch.save({**state, "mask_token": torch.zeros(1, WIDTH)}, path)
    return path


@pytest.fixture
def theirs(file, monkeypatch) -> FeatureExtractorDinoV2:
    """torch-fidelity's, with timm's network in place of what torch.hub would fetch."""
    net = timm.models.VisionTransformer(
        img_size=224, patch_size=14, embed_dim=WIDTH, depth=BLOCKS, num_heads=2, init_values=1.0, num_classes=0,
        global_pool="token",
    )  # fmt: skip
    state = torch.load(file, weights_only=True)
    del state["mask_token"]
    net.load_state_dict(state)
    monkeypatch.setattr(torch.hub, "load", lambda *_: net.eval())
    return FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])


def loaded(file: Path, **settings) -> DINOv2:
    extractor = DINOv2(str(file), **{"variant": "s", "block": 10, **settings})
    extractor.load(CPU)
    return extractor


def test_features_are_torch_fidelitys(file, theirs):
    x = images(3, 0)
    expected = theirs(x)[0]
    assert expected.std(0).mean() > 1e-2  # images differ in them
    torch.testing.assert_close(loaded(file)(x).features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_distances_are_torch_fidelitys(file, theirs):
    """1e-4 of the value."""
    sets = [images(150, 0), images(150, 1) // 2 + 40]
    seen = [look(loaded(file, block=50), x.numpy(), {"moments"}, CPU) for x in sets]
    assert seen[1].moments is not None
    ours = FID(loaded(file)).compare(seen[0], seen[1].moments)["frechet_distance_dinov2_s"]
    stats = [fid_features_to_statistics(torch.cat([theirs(part)[0] for part in x.split(50)])) for x in sets]
    assert ours > 0.1
    assert ours == pytest.approx(fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID], rel=1e-4)


def test_positions_of_518_px_are_resampled_at_the_originals_points():
    """Bicubic (a = -0.75) at (i + 1/2) / s - 1/2 of 37, s = 16.1 / 37, written out for one direction."""
    net = VisionTransformer(WIDTH, 0, 1 + 37**2)
    table = torch.randn(37, generator=torch.Generator().manual_seed(0))
    net.pos_embed.data[0, 1:, 0] = table.repeat_interleave(37)  # varies from row to row
    found = net.positions(16)[0, 1:, 0].reshape(16, 16).detach().numpy()
    at = (np.arange(16) + 0.5) * 37 / 16.1 - 0.5
    places = np.floor(at).astype(int)[:, None] + np.arange(-1, 3)
    x = np.abs(at[:, None] - places)
    a = -0.75
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    expected = (np.where(x <= 1, near, far) * table.numpy()[places.clip(0, 36)]).sum(1)
    np.testing.assert_allclose(found, expected[:, None].repeat(16, 1), atol=1e-5)


def test_reads_the_published_size():
    """ViT-L/14 has 304 million parameters in the paper; its file's table is of 518 px."""
    with torch.device("meta"):
        net = VisionTransformer(*dinov2.VARIANTS["l"], 1 + 37**2)
    assert sum(p.numel() for p in net.parameters()) == 304_367_616


def test_bicubic_is_another_resize_and_grey_is_three_channels(file):
    x, bicubic = images(2, 0), loaded(file, filter="bicubic")
    assert not torch.allclose(bicubic(x).features, loaded(file)(x).features, atol=1e-3)
    assert bicubic.resize != loaded(file).resize
    assert torch.equal(bicubic(x[:, :1]).features, bicubic(x[:, :1].repeat(1, 3, 1, 1)).features)


def test_names():
    assert FID(DINOv2()).name == "frechet_distance_dinov2"
    assert DINOv2(variant="b").name == "dinov2_b"


def test_refusals(file, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="variant=g: one of s, b, l"):
        DINOv2(variant="g")
    with pytest.raises(ValueError, match="filter=box: one of bilinear, bicubic"):
        DINOv2(filter="box")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"vitl14_pretrain\.pth is missing; fetch https://"):
        DINOv2().load(CPU)
    with pytest.raises(UserError, match="does not fit VisionTransformer"):
        loaded(file, variant="b")
    torch.save({"x": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no pos_embed"):
        loaded(tmp_path / "w.pth")

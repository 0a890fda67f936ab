"""Cosine similarity of omegas: closed forms at init, and what changes with training."""

import math

import numpy as np
import pytest
import torch

from lorafusion.analysis.omega_similarity import OmegaSimilarity, by_distance, cosine, similarities
from lorafusion.conditioning.attn.class_lora import ClassLoRA
from lorafusion.conditioning.attn.time_lora import TimeLoRA
from lorafusion.conditioning.attn.uc_lora import UCLoRA
from lorafusion.errors import UserError
from lorafusion.samplers.ancestral import Ancestral
from lorafusion.samplers.heun import Heun
from tests.analysis.denoisers import edm, moved, nano

T, M = 40, 4  # knots at t = 0, 13, 26, 39


def hats(t1: int, t2: int) -> float:
    """Both lie u and v of the way through interval i and j: only the hats of shared knots meet."""
    (i, u), (j, v) = sorted((min(t // 13, M - 2), t / 13 - min(t // 13, M - 2)) for t in (t1, t2))
    dot = {0: (1 - u) * (1 - v) + u * v, 1: u * (1 - v)}.get(j - i, 0.0)
    return dot / (math.hypot(1 - u, u) * math.hypot(1 - v, v))


def test_the_linear_init_has_a_band_that_is_known():
    found = OmegaSimilarity(points=T)(nano(TimeLoRA(num_bases=M)), None, Ancestral())
    expected = np.array([[hats(a, b) for b in range(T)] for a in range(T)])
    assert found.arrays["levels_trained"].shape == (8, T, T)
    assert found.arrays["levels_layers"].tolist()[:2] == ["enc.1.attn.qkv", "enc.1.attn.proj"]
    np.testing.assert_allclose(found.arrays["levels_trained"], expected[None].repeat(8, 0), atol=1e-6)
    assert expected[0, 13] == 0  # so the band is narrow, and the curve falls
    assert 0.5 < expected[3, 8] < 1
    curve = found.numbers["by_distance"]["trained"]
    assert curve[0] == pytest.approx(1)
    assert curve[-1] == pytest.approx(0, abs=1e-9)


def test_a_random_init_has_no_band_and_a_trained_table_its_own():
    initial, trained = nano(TimeLoRA(num_bases=11, init="random")), moved(nano(TimeLoRA(num_bases=11)), by=0.01)
    found = OmegaSimilarity(points=T)(trained, initial, Ancestral())
    apart = found.arrays["levels_init"][:, ~np.eye(T, dtype=bool)]
    assert abs(apart.mean()) < 0.02
    assert apart.std() == pytest.approx(1 / math.sqrt(11), rel=0.1)  # of random directions in 11 dimensions
    near = np.mean([np.diagonal(m, 1).mean() for m in found.arrays["levels_trained"]])
    assert near > 0.85
    table = trained.net.state_dict()["dec.1.attn.proj.updates.time_lora.omega.table"].double()
    layer = found.arrays["levels_layers"].tolist().index("dec.1.attn.proj")
    expected = torch.nn.functional.cosine_similarity(table[:, None], table[None], dim=2)
    np.testing.assert_allclose(found.arrays["levels_trained"][layer], expected, atol=1e-6)
    assert {*found.pictures} == {"levels", "by_distance"}


def test_class_lora_compares_classes_alone_and_one_hot_is_the_identity():
    found = OmegaSimilarity(points=5)(moved(edm(ClassLoRA(), num_classes=5)), None, Heun())
    assert {*found.pictures} == {"classes"}
    assert np.array_equal(found.arrays["classes_trained"], np.eye(5)[None].repeat(8, 0))
    assert found.numbers["between_classes"] == {"trained": 0}
    assert found.said == ["mean similarity of two classes, 8 layers: trained 0.000"]


def test_one_lora_for_every_step_is_the_identity():
    found = OmegaSimilarity(points=T)(nano(TimeLoRA(compositional=False)), None, Ancestral())
    assert np.array_equal(found.arrays["levels_trained"][0], np.eye(T))


def test_uc_lora_over_sigma_and_classes_at_the_label_that_was_chosen():
    denoiser = moved(edm(UCLoRA(mlp=(16, 8), num_bases=6), num_classes=3, conv=()))
    found = OmegaSimilarity(points=6, label=2)(denoiser, None, Heun(4, 0.01, 10))
    assert {*found.pictures} == {"levels", "by_distance", "classes"}
    sigma = torch.from_numpy(np.exp(found.arrays["levels"]))
    np.testing.assert_allclose(sigma[[0, -1]], [0.01, 10])
    net = denoiser.net
    with torch.no_grad():
        emb = net.embed((sigma.log() / 4).float(), torch.eye(3)[[2] * 6])
        omega = net.enc[1].attn.qkv.updates["uc_lora"].omega.layers(emb).double()
    expected = torch.nn.functional.cosine_similarity(omega[:, None], omega[None], dim=2)
    np.testing.assert_allclose(found.arrays["levels_trained"][0], expected, atol=1e-5)
    zero = OmegaSimilarity(points=6)(denoiser, None, Heun(4, 0.01, 10))
    assert abs(zero.arrays["levels_trained"] - found.arrays["levels_trained"]).max() > 1e-3
    assert np.array_equal(zero.arrays["classes_trained"], found.arrays["classes_trained"])


def test_cosine_of_a_zero_omega_is_not_known():
    found = cosine(np.array([[1.0, 0], [0, 0], [1, 1]]))
    np.testing.assert_allclose(found, [[1, np.nan, 0.5**0.5], [np.nan] * 3, [0.5**0.5, np.nan, 1]])
    np.testing.assert_allclose(by_distance(found), [1, np.nan, 0.5**0.5])


def test_layers_whose_omega_never_varies_are_left_out():
    still, moving = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    maps = similarities({"init": {"a": still, "b": still}, "trained": {"a": still, "b": moving}})
    assert {stage: [*of_layer] for stage, of_layer in maps.items()} == {"init": ["b"], "trained": ["b"]}
    assert similarities({"trained": {"a": still}}) == {}


def test_mistakes():
    with pytest.raises(UserError, match=r"analysis.label=3: classes of this run are 0 \.\. 2"):
        OmegaSimilarity(label=3)(edm(UCLoRA(mlp=(8,)), num_classes=3), None, Heun())
    with pytest.raises(UserError, match="label=0 was given, but this run is unconditional"):
        OmegaSimilarity(label=0)(edm(UCLoRA(mlp=(8,))), None, Heun())
    with pytest.raises(UserError, match="depend neither"):
        OmegaSimilarity(points=3)(nano(TimeLoRA(num_bases=1)), None, Ancestral())

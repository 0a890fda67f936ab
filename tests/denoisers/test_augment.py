"""EDM's augmentation against the original's images, against exact maps of a smooth picture, and against its odds."""

import dataclasses
import math

import pytest
import torch

from lorafusion.denoisers.augment import LABELS, SYM6, Augment, Changes, draw
from lorafusion.draws import Draws
from tests.golden.reference import reference, relative


def read(labels, sign):
    """The changes that labels tell of. They leave open which sign a stretch has whose axis is turned."""
    stretch = labels[:, 5:7].norm(dim=1) * sign
    return Changes(
        mirror_x=labels[:, 0] > 0.5,
        mirror_y=labels[:, 1] > 0.5,
        scale=labels[:, 2],
        angle=torch.atan2(labels[:, 4], labels[:, 3] + 1),
        stretch=stretch,
        axis=torch.atan2(labels[:, 6] / sign, labels[:, 5] / sign),
        shift_x=labels[:, 7],
        shift_y=labels[:, 8],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_originals_images_from_their_labels(dtype):
    ref = reference("edm_augment")
    images, labels = ref["images"].to(dtype), ref["augment_labels"].to(dtype)
    signs = [read(labels, sign).apply(images) for sign in (1, -1)]
    for i, wanted in enumerate(ref["augmented"]):
        errors = [relative(made[i], wanted) for made in signs]
        if labels[i, 6] == 0:  # no turned axis: the first label's sign is the stretch's
            errors = [errors[0 if labels[i, 5] >= 0 else 1]]
        assert min(errors) < 1e-5
    torch.testing.assert_close(read(labels, -1).labels(), labels)


def nothing(n, dtype=torch.float64):
    zero, no = torch.zeros(n, dtype=dtype), torch.zeros(n, dtype=torch.bool)
    return Changes(no, no, zero, zero, zero, zero, zero, zero)


def picture(matrix=((1, 0), (0, 1)), shift=(0, 0), size=32):
    """A smooth bump, off the centre, seen through x -> matrix x + shift (pixels from the centre)."""
    k = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    x, y = torch.meshgrid(k, k, indexing="xy")
    (a, b), (c, d) = matrix
    u, v = a * x + b * y + shift[0], c * x + d * y + shift[1]
    return torch.exp(-((u - 3) ** 2 / 60 + (v + 2) ** 2 / 24))[None, None]


def rotation(angle):
    return ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle)))


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"scale": 1.5}, {"matrix": ((2**-0.3, 0), (0, 2**-0.3))}),
        ({"angle": 0.7}, {"matrix": rotation(0.7)}),
        ({"stretch": 1.0}, {"matrix": ((2**-0.2, 0), (0, 2**0.2))}),
        ({"stretch": 1.0, "axis": math.pi / 2}, {"matrix": ((2**0.2, 0), (0, 2**-0.2))}),
        ({"shift_x": 0.9}, {"shift": (-0.9 * 4, 0)}),
        ({"shift_y": -0.6}, {"shift": (0, 0.6 * 4)}),
    ],
)
def test_each_map_of_a_smooth_picture(change, seen):
    values = {name: torch.full((1,), float(value), dtype=torch.float64) for name, value in change.items()}
    made = dataclasses.replace(nothing(1), **values).apply(picture())
    error = (made - picture(**seen))[..., 8:-8, 8:-8].abs().max()  # inside, where nothing is reflected
    assert error < 8e-3  # of bilinear interpolation at twice the resolution


def test_mirrors_are_exact():
    x = torch.randn(2, 3, 8, 8)
    left = dataclasses.replace(nothing(2, torch.float32), mirror_x=torch.tensor([True, False]))
    assert torch.equal(left.apply(x)[0], x[0].flip(2))
    assert torch.equal(left.apply(x)[1], x[1])
    top = dataclasses.replace(nothing(2, torch.float32), mirror_y=torch.tensor([False, True]))
    assert torch.equal(top.apply(x)[1], x[1].flip(1))


def test_an_image_does_not_depend_on_its_neighbours():
    x = torch.randn(80, 3, 16, 16, dtype=torch.float64)
    made, labels = Augment(p=0.7)(x, Draws(3, torch.arange(80)))
    for i in (0, 17, 79):
        alone, its = Augment(p=0.7)(x[i : i + 1], Draws(3, torch.tensor([i])))
        torch.testing.assert_close(alone[0], made[i], rtol=1e-12, atol=1e-12)
        assert torch.equal(its[0], labels[i])
    assert labels.shape == (80, LABELS)


def test_changes_come_as_often_as_asked_and_are_distributed_as_published():
    n, p = 20_000, 0.12
    changes = draw(Draws(0, torch.arange(n)), p, torch.float64)
    for name, odds in {
        **dict.fromkeys(("scale", "angle", "stretch", "shift_x", "shift_y"), p),
        **{"mirror_x": 0.5, "mirror_y": p / 2, "axis": 0.5},
    }.items():
        share = (getattr(changes, name) != 0).double().mean().item()
        assert share == pytest.approx(odds, abs=5 * math.sqrt(odds * (1 - odds) / n)), name
    assert torch.equal(changes.shift_x != 0, changes.shift_y != 0)
    assert changes.scale[changes.scale != 0].std().item() == pytest.approx(1, abs=0.06)
    angles = changes.angle[changes.angle != 0]
    assert angles.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)
    assert not (changes.scale != 0).equal(changes.angle != 0)


def test_p_0_changes_nothing():
    x = torch.randn(50, 1, 8, 8)
    made, labels = Augment(p=0)(x, Draws(0, torch.arange(50)))
    assert torch.equal(made, x)
    assert labels.abs().max() == 0
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        Augment(p=1.2)


def test_the_filter_is_the_symlet():
    """Orthonormal to its own shifts by two taps, and blind to polynomials up to degree 5 as a high-pass filter."""
    h = torch.tensor(SYM6, dtype=torch.float64)
    for k in range(6):
        overlap = (h[2 * k :] * h[: len(h) - 2 * k]).sum()
        assert overlap.item() == pytest.approx(float(k == 0), abs=1e-9)
    n = torch.arange(12, dtype=torch.float64)
    for degree in range(6):
        assert ((-1) ** n * n**degree * h).sum().abs() < 1e-5 * max(1, 11.0**degree)

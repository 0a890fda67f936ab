"""A small network that reads handwritten digits: trained in seconds on the digits at hand, then kept.

It judges generated digits (see digits.py). Its features make a Frechet distance of their own, which is not FID.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lorafusion.errors import UserError

BATCH = 256  # the one batch size the network is asked with: results must not depend on how many images come together
Progress = Callable[[int, int], None]  # (done, total)


class DigitClassifier(nn.Module):
    """Two convolutions on patches, 64 features, 10 classes.

    No batch norm: with it, noise was recognised as a digit with p > 0.9 nearly always.

    resolution:  pixels a side, at least 8.
    channels:    of the images.
    """

    width = 64

    def __init__(self, resolution: int, channels: int = 1, num_classes: int = 10):
        super().__init__()
        if resolution < 8:
            raise ValueError(f"the digit classifier needs images of at least 8 pixels a side; got {resolution}")
        self.resolution, self.channels = resolution, channels
        patch = max(p for p in range(1, max(resolution // 16, 1) + 1) if resolution % p == 0)
        side = (resolution // patch + 1) // 4
        self.body = nn.Sequential(
            nn.PixelUnshuffle(patch),  # about 16 patches a side, so that larger images cost no more
            *(nn.Conv2d(channels * patch**2, 32, 5, padding=2, stride=2), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * side**2, self.width), nn.ReLU()),
        )
        self.head = nn.Linear(self.width, num_classes)

    def forward(self, x: Float[Tensor, "N C R R"]) -> Float[Tensor, "N K"]:
        """Logits of images in [-1, 1]."""
        return self.head(self.body(x))

    def features(self, images: np.ndarray | Tensor) -> Float[Tensor, "N 64"]:
        """Of uint8 images, or floats in [-1, 1], (N, C, R, R); float32, at least 0, the same for any grouping.

        Raises ValueError for another size, type or range.
        """
        return self._in_batches(self.body, images)

    def probabilities(self, images: np.ndarray | Tensor) -> Float[Tensor, "N K"]:
        """Of the classes, for the images that ``features`` takes."""
        return self._in_batches(self, images).softmax(dim=1)

    @torch.no_grad()
    def _in_batches(self, layers: nn.Module, images: np.ndarray | Tensor) -> Float[Tensor, "N D"]:
        expected = (self.channels, self.resolution, self.resolution)
        if images.ndim != 4 or len(images) == 0 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"this classifier reads images (N, {str(expected)[1:]}; got {tuple(images.shape)}")
        outputs = []
        for start in range(0, len(images), BATCH):
            x = to_float(images[start : start + BATCH])
            outputs.append(layers(F.pad(x, (0,) * 7 + (BATCH - len(x),)))[: len(x)])
        return torch.cat(outputs)


def to_float(images: np.ndarray | Tensor) -> Float[Tensor, "N C R R"]:
    """uint8 0 .. 255 -> [-1, 1]; floats must lie there already. Raises ValueError."""
    x = images.detach().cpu() if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    if x.dtype == torch.uint8:
        return x.float() / 127.5 - 1
    if not x.is_floating_point():
        raise ValueError(f"images must be uint8, or floats in [-1, 1]; got {x.dtype}")
    if not (x.abs() <= 1 + 1e-4).all():  # NaN fails this too
        raise ValueError(f"float images must lie in [-1, 1]; got {x.min().item():g} .. {x.max().item():g}")
    return x.float()


def train(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int = 800,
    batch_size: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> DigitClassifier:
    """Train on uint8 images (N, C, R, R) with labels (N,) in 0 .. 9, about 8 s of one core at any resolution.

    An eighth of every batch shows no digit at all and asks for equal probabilities: what a network says of pictures
    unlike any it has seen is an accident of its seed (noise recognised: 0.04 with one, 0.97 with another).
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitClassifier(images.shape[-1], images.shape[1])
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    target = torch.from_numpy(np.array(labels, np.int64))
    with one_thread():
        for step in range(steps):
            index = torch.randint(len(images), (batch_size,), generator=draw)
            digits = augment(to_float(images[index.numpy()]), draw)
            nothing = no_digits(batch_size // 8, net, draw)
            logits = net(torch.cat((digits, nothing)))
            uniform = -logits[batch_size:].log_softmax(dim=1).mean(dim=1)
            loss = (F.cross_entropy(logits[:batch_size], target[index], reduction="sum") + uniform.sum()) / batch_size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress:
                progress(step + 1, steps)
    return net.eval().requires_grad_(False)


@contextmanager
def one_thread() -> Iterator[None]:
    """So that weights do not depend on the number of cores. At this size more threads gain nothing, and on a busy
    machine they cost sixfold."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def augment(x: Float[Tensor, "N C R R"], draw: torch.Generator) -> Float[Tensor, "N C R R"]:
    """Turn by up to 12 degrees, scale by up to 10 %, shift by up to 7 % of the side; what enters is background, -1."""

    def up_to(limit: float) -> Float[Tensor, "N"]:
        return (2 * torch.rand(len(x), generator=draw) - 1) * limit

    angle, scale = up_to(math.radians(12)), 1 + up_to(0.1)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack((cos, -sin, up_to(0.14)), dim=1), torch.stack((sin, cos, up_to(0.14)), dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def no_digits(n: int, net: DigitClassifier, draw: torch.Generator) -> Float[Tensor, "N C R R"]:
    """Uniform noise, its grain anything from one pixel to the whole image, which then is blank."""
    sizes = [1, 2, 4, net.resolution // 2, net.resolution]
    size = sizes[int(torch.randint(len(sizes), (), generator=draw))]
    noise = 2 * torch.rand(n, net.channels, size, size, generator=draw) - 1
    return F.interpolate(noise, size=(net.resolution, net.resolution), mode="bilinear")


def cached(
    images: np.ndarray, labels: np.ndarray, folder: Path, *, seed: int = 0, progress: Progress | None = None
) -> DigitClassifier:
    """The classifier for these digits: read from ``folder``, or trained now and kept there.

    The file's name tells the data, the resolution and the code that trained it, so a stale one is never read.
    """
    resolution = images.shape[-1]
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    path = folder / f"digit_classifier-{resolution}px-{fingerprint(images, labels)[:16]}-{code[:16]}-s{seed}.pt"
    net = DigitClassifier(resolution, images.shape[1]).eval().requires_grad_(False)
    try:
        net.load_state_dict(torch.load(path, weights_only=True))
    except Exception:  # missing or damaged, which torch.load reports in a dozen ways: train it again
        net = train(images, labels, seed=seed, progress=progress)
        _save(net, path)
    return net


def trusted(
    train_split: tuple[np.ndarray, np.ndarray],
    test_split: tuple[np.ndarray, np.ndarray],
    folder: Path,
    min_accuracy: float,
    progress: Progress | None = None,
) -> tuple[DigitClassifier, float]:
    """``cached`` for the training digits, and its accuracy on the test digits.

    Raises UserError where they are not the ten labelled digits, or the accuracy is below ``min_accuracy``.
    """
    for _, labels in (train_split, test_split):
        if len(labels) < 2 or labels.min() < 0 or labels.max() > 9:
            raise UserError("the digit classifier judges digits: it needs data with labels 0 .. 9, like data=mnist")
    net = cached(*train_split, folder, progress=progress)
    images, labels = test_split
    accuracy = float((net.probabilities(images).argmax(dim=1).numpy() == labels).mean())
    if accuracy < min_accuracy:
        raise UserError(
            f"the digit classifier reads only {accuracy:.1%} of {len(images):,} held-out digits: "
            f"below {min_accuracy:.1%} (min_accuracy) it is no judge"
        )
    return net, accuracy


def _save(net: DigitClassifier, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        torch.save(net.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """sha256 of the shapes, the pixels and the labels."""
    digest = hashlib.sha256(f"{images.shape} {labels.shape}".encode())
    digest.update(np.ascontiguousarray(images, np.uint8).data)
    digest.update(np.ascontiguousarray(labels, np.int64).data)
    return digest.hexdigest()


def weights_sha256(net: nn.Module) -> str:
    """Of all parameters, in their order."""
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()

"""What surrounds the network in a training step: optimizer, EMA, loader and draws beside their plain forms.

python bench/step.py --parameters 22
"""

import argparse
import copy
import tempfile
from pathlib import Path

import abab
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lorafusion.data.module import ImageData, scaled
from lorafusion.data.synthetic import Synthetic
from lorafusion.draws import Draws
from lorafusion.ema import EMA


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=22, help="millions, in 200 tensors")
    args = parser.parse_args()
    print(abab.machine())
    torch.manual_seed(0)
    weights = [torch.randn(int(args.parameters * 1e6 / 200)) for _ in range(200)]
    abab.show(f"EMA, {args.parameters:g} M parameters", abab.abab(averages(weights), check=_unlike))
    abab.show(f"Adam, {args.parameters:g} M parameters", abab.abab(optimizers(weights), check=_unlike))
    shape = (128, 3, 32, 32)
    abab.show(f"noise of {shape}", abab.abab(noise(shape), check=_unlike))
    with tempfile.TemporaryDirectory() as folder:
        abab.show("4,096 images of 3 x 32 x 32, in batches of 512", abab.abab(loaders(Path(folder)), check=_unlike))


def _unlike(out: object, expected: object) -> None:
    """These change state or draw at random; tests prove them equal elsewhere."""


def averages(weights: list[torch.Tensor]) -> dict:
    ema, plain = EMA(weights, decay=0.999), [w.clone() for w in weights]

    def loop() -> None:
        for average, weight in zip(plain, weights, strict=True):
            average.copy_(weight.lerp(average, 0.999))

    return {"copy and lerp in a loop": loop, "ours": lambda: ema.update(weights, 0, 1)}


def optimizers(weights: list[torch.Tensor]) -> dict:
    def make(**settings: bool) -> torch.optim.Optimizer:
        copies = [torch.nn.Parameter(copy.deepcopy(w)) for w in weights]
        for p in copies:
            p.grad = torch.randn_like(p)
        return torch.optim.Adam(copies, lr=1e-3, **settings)

    return {"plain": make(foreach=False).step, "foreach": make(foreach=True).step, "fused": make(fused=True).step}


def noise(shape: tuple[int, ...]) -> dict:
    index = torch.arange(shape[0])
    return {"torch.randn": lambda: torch.randn(shape), "draws": lambda: Draws(0, index).normal(*shape[1:])}


class PngFiles(Dataset):
    """The usual dataset: one file, one image, one tensor at a time."""

    def __init__(self, folder: Path, images: np.ndarray):
        self.paths = [folder / f"{k}.png" for k in range(len(images))]
        for path, image in zip(self.paths, images, strict=True):
            Image.fromarray(image.transpose(1, 2, 0)).save(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> torch.Tensor:
        return torch.from_numpy(np.asarray(Image.open(self.paths[k])).transpose(2, 0, 1).copy())


def loaders(folder: Path) -> dict:
    source = Synthetic(resolution=32, channels=3, num_classes=10, n=4096, n_test=16, seed=0)
    data = ImageData("bench", source, 32, 3, 10, batch_size=512, num_workers=0, seed=0, cache_dir=folder)
    ours = iter(data.train_dataloader())
    files = DataLoader(PngFiles(folder, data.arrays("train")[0]), batch_size=512, shuffle=True)

    def usual() -> None:
        for image in files:
            scaled(image)

    def stream() -> None:
        for _ in range(8):
            scaled(next(ours)["image"])

    return {"png files, one at a time": usual, "whole batches from the memory map": stream}


if __name__ == "__main__":
    main()

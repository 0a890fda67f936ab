"""Extraction of Inception's features, and the Frechet distance on 2048 of them, beside torch-fidelity's.

python bench/features.py             random weights of the right layout: time does not depend on them
python bench/features.py --distance  the distance too, some minutes
"""

import argparse
import sys
import tempfile
from pathlib import Path

import abab
import counters
import frechet
import torch

import lorafusion  # noqa: F401  its first import cures torchvision, which torch-fidelity needs
from lorafusion.metrics.extractor.inception import Inception

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.metrics.extractor import random_inception


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4, help="images at once")
    parser.add_argument("--distance", action="store_true", help="the distance on 2048 features too")
    args = parser.parse_args()
    print(abab.machine())
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (args.batch, 3, 32, 32), dtype=torch.uint8, generator=draw)
    with tempfile.TemporaryDirectory() as folder:
        variants = extractors(random_inception.write(Path(folder) / "inception.pth"), images)
    for name, variant in variants.items():
        count = counters.count(variant)
        print(f"{name}: {count.calls} aten calls, {count.flops / 1e9:.1f} GFLOP")
    abab.show(f"features of {args.batch} images", abab.abab(variants, rtol=1e-3, atol=1e-4))
    if args.distance:
        stats = [frechet.statistics(frechet.features(2048, seed)) for seed in (0, 1)]
        distances = frechet.distances(stats)
        del distances["scipy sqrtm (TTUR)"]
        abab.show("distance, 2048 features", abab.abab(distances, rtol=1e-6))


def extractors(file: Path, images: torch.Tensor) -> dict[str, abab.Variant]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    names = ["2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=str(file))
    ours = Inception(str(file))
    ours.load(torch.device("cpu"))

    def fidelity() -> tuple:
        with torch.no_grad():
            return theirs(images)

    return {"torch-fidelity": fidelity, "ours (folded, channels_last)": lambda: tuple(ours(images))}


if __name__ == "__main__":
    main()

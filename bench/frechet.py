"""The Frechet distance beside torch-fidelity's and the square root of a matrix that TTUR takes.

python bench/frechet.py --dim 64 512
"""

import argparse
from collections.abc import Callable

import abab
import numpy as np
import torch
from scipy.linalg import sqrtm

import lorafusion  # noqa: F401  its first import cures torchvision, which torch-fidelity needs
from lorafusion.metrics.frechet import frechet_distance
from lorafusion.metrics.moments import Moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dim", type=int, nargs="+", default=[64, 512], metavar="D", help="widths of the features; Inception: 2048"
    )
    parser.add_argument("--without-sqrtm", action="store_true", help="leave out the slowest variant")
    args = parser.parse_args()
    print(abab.machine())
    for dim in args.dim:
        first, second = features(dim, seed=0), features(dim, seed=1)
        stats = [statistics(first), statistics(second)]
        variants = distances(stats)
        if args.without_sqrtm:
            del variants["scipy sqrtm (TTUR)"]
        abab.show(f"distance, {dim} features", abab.abab(variants, rtol=1e-6))
        abab.show(f"moments of {len(first):,} x {dim}", abab.abab(moments(first), rtol=1e-6))


def features(dim: int, seed: int) -> torch.Tensor:
    """At least 0 and correlated, as what follows a ReLU; (4 dim, dim) float32."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(7)) / dim**0.5
    scale = torch.logspace(0, -2, dim)
    return (torch.randn(4 * dim, dim, generator=draw) * scale @ mixing + 0.1 * seed).relu()


def statistics(x: torch.Tensor) -> dict[str, np.ndarray]:
    return {"mu": x.double().numpy().mean(axis=0), "sigma": np.cov(x.double().numpy(), rowvar=False)}


def distances(stats: list[dict[str, np.ndarray]]) -> dict[str, Callable[[], float]]:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    ours = [torch.from_numpy(s[key]) for s in stats for key in ("mu", "sigma")]
    a, b = stats

    def ttur() -> float:
        root = np.real(sqrtm(a["sigma"] @ b["sigma"]))  # pyright: ignore[reportArgumentType]
        return ((a["mu"] - b["mu"]) ** 2).sum() + np.trace(a["sigma"] + b["sigma"] - 2 * root)

    return {
        "torch-fidelity (eigvals)": lambda: fid_statistics_to_metric(a, b, verbose=False)[KEY_METRIC_FID],
        "scipy sqrtm (TTUR)": ttur,
        "ours (Cholesky, eigvalsh)": lambda: frechet_distance(*ours),
    }


def moments(x: torch.Tensor) -> dict[str, Callable[[], tuple]]:
    def plain() -> tuple:
        return x.double().mean(0), torch.cov(x.double().T)

    def ours() -> tuple:
        seen = Moments(x.shape[1]).add(x)
        return seen.mean, seen.covariance

    return {"float64 mean and cov of all features at once": plain, "ours (exact, any order)": ours}


if __name__ == "__main__":
    main()

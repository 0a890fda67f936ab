"""Frechet distance between two sets of features, from their means and covariances (moments.py).

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)

Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; on Inception's features it is
the FID of Heusel et al. 2017. On any other features it is a Frechet distance of its own, and never comparable.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(
    mean_1: Float[Tensor, "D"],
    covariance_1: Float[Tensor, "D D"],
    mean_2: Float[Tensor, "D"],
    covariance_2: Float[Tensor, "D D"],
) -> float:
    """d^2 between two Gaussians, at least 0, in the features' unit squared; covariances may be singular."""
    mean = (mean_1.double() - mean_2.double()).square().sum()
    trace = covariance_1.trace() + covariance_2.trace()
    distance = mean + trace - 2 * trace_sqrt_product(covariance_1.double(), covariance_2.double())
    return max(0.0, distance.item())


def trace_sqrt_product(a: Float[Tensor, "D D"], b: Float[Tensor, "D D"]) -> Float[Tensor, ""]:
    """tr (A B)^(1/2) for symmetric positive semi-definite A and B.

    With A = L L^T the eigenvalues of A B are those of the symmetric L^T B L: no square root of a matrix is needed, and
    a symmetric eigenproblem costs a fraction of the general one. Where A or B is singular the small eigenvalues are
    rounding errors of either sign, whose roots are not small; then they are taken as singular values of L_A^T L_B,
    which have no root in them.
    """
    factor, failed = torch.linalg.cholesky_ex(a)
    if not failed:
        values = torch.linalg.eigvalsh(_congruent(factor, b), UPLO="L")  # ascending
        if values[0] > _rounding(values):
            return values.sqrt().sum()
    return torch.linalg.svdvals(_root(a).T @ _root(b)).sum()


def _congruent(factor: Float[Tensor, "D D"], b: Float[Tensor, "D D"], block: int = 256) -> Float[Tensor, "D D"]:
    """L^T B L for a lower triangular L, its lower triangle only: a third of the work of two matrix products."""
    starts = range(0, len(b), block)
    right = torch.cat([b[:, k:] @ factor[k:, k : k + block] for k in starts], dim=1)  # B L
    result = torch.zeros_like(b)
    for k in starts:
        result[k : k + block, : k + block] = factor[k:, k : k + block].T @ right[k:, : k + block]
    return result


def _root(a: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """L with A = L L^T from the eigenvectors, those of eigenvalues within rounding of 0 left out."""
    values, vectors = torch.linalg.eigh(a)
    return vectors * values.where(values > _rounding(values), 0).sqrt()


def _rounding(values: Float[Tensor, "D"]) -> Tensor:
    """Eigenvalues (ascending) up to this cannot be told from 0."""
    return len(values) * torch.finfo(values.dtype).eps * values[-1]

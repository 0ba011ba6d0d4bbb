"""Directions of a representation that a concept lives in, to first order: where a flow starts."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["answer_directions", "pair_directions", "turn"]

_N_EXAMPLES = 256  # whose gradients are taken
_N_ANSWERS = 32  # combinations of logits, where there are more classes than that
_OVERSAMPLING = 10


def answer_directions(
    head: Callable[[Tensor], Tensor],
    value: Float[Tensor, "n D"],
    n_directions: int,
    seed: int = 0,
) -> Float[Tensor, "D k"]:
    r"""The directions that an answer depends on most: its active subspace.

    The leading eigenvectors of :math:`\mathbb{E}\, J^\top J`, where J is the Jacobian of the
    logits, less their mean, with respect to the coordinates.

    References:
        Active Subspaces: Emerging Ideas for Dimension Reduction in Parameter Studies
        (Constantine, 2015), https://doi.org/10.1137/1.9781611973860

    Args:
        head: From coordinates to logits.
        value: Coordinates of examples.
        n_directions: Most directions wanted; fewer where the answer depends on fewer.
        seed: Of what is random in it.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        some = value[:_N_EXAMPLES].detach().clone().requires_grad_(True)
        logits = head(some)
        centred = logits - logits.mean(-1, keepdim=True)
        n_classes = centred.shape[-1]
        if n_classes > _N_ANSWERS:
            mix = torch.randn(n_classes, _N_ANSWERS, generator=generator).to(centred)
            centred = centred @ mix
        gradients = [
            torch.autograd.grad(column.sum(), some, retain_graph=True)[0]
            for column in centred.unbind(-1)
        ]
    return _leading(torch.cat(gradients), n_directions, seed)


def pair_directions(
    first: Float[Tensor, "pairs D"],
    second: Float[Tensor, "pairs D"],
    differ: bool,
    n_directions: int,
    seed: int = 0,
) -> Float[Tensor, "D k"]:
    """The directions that pairs share most, or, for pairs that differ in a concept, least.

    Args:
        first: Coordinates of one example of each pair.
        second: Those of the other.
        differ: Whether pairs differ in the concept only.
        n_directions: Directions wanted.
        seed: Of what is random in it.
    """
    if differ:
        return _leading(first - second, n_directions, seed)
    a, b = first - first.mean(0), second - second.mean(0)
    cross = a.T @ b / len(a)
    return _leading((cross + cross.T) / 2, n_directions, seed)


def turn(
    directions: Float[Tensor, "D k"],
) -> tuple[Float[Tensor, "D k"], Float[Tensor, "k k"]]:
    r"""V and W such that :math:`Q = I - V W V^\top` is orthogonal and takes axis i to direction i.

    A product of k Householder reflections in its compact form, applied in :math:`O(D k)`. An axis
    may go to the negative of its direction.

    References:
        A Storage-Efficient WY Representation for Products of Householder Transformations
        (Schreiber & Van Loan, 1989), https://doi.org/10.1137/0910005

    Args:
        directions: Orthonormal columns.
    """
    n, k = directions.shape
    packed, tau = torch.geqrf(directions.double())
    vectors = packed.tril(-1) + torch.eye(n, k, dtype=packed.dtype, device=packed.device)
    weights = torch.zeros(k, k, dtype=packed.dtype, device=packed.device)
    for j in range(k):
        weights[j, j] = tau[j]
        overlap = vectors[:, :j].T @ vectors[:, j]
        weights[:j, j] = -tau[j] * (weights[:j, :j] @ overlap)
    return vectors.to(directions), weights.to(directions)


def _leading(rows: Tensor, n_directions: int, seed: int) -> Tensor:
    """Leading right singular vectors, those with a weight only."""
    q = min(n_directions + _OVERSAMPLING, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, values, directions = torch.svd_lowrank(rows, q=q, niter=4)
    good = values > 1e-5 * values.max().clamp(min=1e-30)
    return directions[:, good][:, :n_directions]

"""Do two sets of features come from one distribution: FID, KID, precision, recall and coverage.

All functions take features, not images: name the feature map and the sample sizes beside each
number, and the same function between two halves of real data as its floor.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.metrics.estimate import Estimate, mean, proportion

__all__ = [
    "Neighbourhood",
    "conditional_coverage",
    "conditional_frechet_distance",
    "frechet_distance",
    "kernel_distance",
    "neighbourhood",
]

# Rows of a distance matrix held at a time.
CHUNK = 1000


class Neighbourhood(NamedTuple):
    """Agreement of two sets by nearest neighbours, see :func:`neighbourhood`."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m _d"]) -> Estimate:
    r"""Fréchet distance between Gaussians fitted to two sets of features (FID).

    .. math:: \lVert \mu_a - \mu_b \rVert^2 +
        \mathrm{tr}\bigl(S_a + S_b - 2 (S_a S_b)^{1/2}\bigr)

    In squared units of the features. Biased upwards by an amount of order d / n, so compare only
    values at equal sizes, and with the floor between two real sets. The interval is from a
    jackknife that leaves out a tenth of both sets at a time, which does not remove the bias.

    References:
        GANs trained by a two time-scale update rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500

    Args:
        a: Features of one set, at least 20 rows.
        b: Features of the other.

    Raises:
        ValueError: If widths differ or a set has fewer than 20 rows.

    Example:
        >>> import torch
        >>> a = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(a, a + 3).value)
        18
    """
    _check(a, b, least=20)
    a, b = a.double(), b.double()
    n_groups = 10
    group_a = torch.arange(len(a), device=a.device) % n_groups
    group_b = torch.arange(len(b), device=b.device) % n_groups
    value = _frechet(a, b)
    left_out = torch.tensor(
        [_frechet(a[group_a != g], b[group_b != g]) for g in range(n_groups)], dtype=torch.float64
    )
    error = ((n_groups - 1) * left_out.var(correction=0)).sqrt().item()
    return Estimate(value, max(value - 1.96 * error, 0.0), value + 1.96 * error)


def kernel_distance(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m _d"],
    n_subsets: int = 100,
    size: int = 1000,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Squared maximum mean discrepancy with a cubic kernel (KID), unbiased.

    .. math:: \mathrm{mean}_{i \neq j} k(a_i, a_j) + \mathrm{mean}_{i \neq j} k(b_i, b_j)
        - 2\, \mathrm{mean}_{ij} k(a_i, b_j), \quad k(u, v) = (u^\top v / d + 1)^3

    averaged over random subsets; 0 on average for one distribution, so single values may be
    negative. Subsets overlap, so for the interval the variance between them is multiplied by
    :math:`1/n_{subsets} + f/(1 - f)`, f the share of the smaller set that a subset holds: right
    for different distributions, wide for equal ones.

    References:
        Demystifying MMD GANs (Bińkowski et al., 2018), https://arxiv.org/abs/1801.01401

    Args:
        a: Features of one set.
        b: Features of the other.
        n_subsets: Number of subsets, at least 2.
        size: Rows of each subset; cut to half of the smaller set, so that subsets differ.
        generator: Source of the subsets; None takes a fresh one with seed 0.

    Raises:
        ValueError: If widths differ, a set has fewer than 4 rows, or a number is less than 2.
    """
    _check(a, b, least=4)
    if n_subsets < 2 or size < 2:
        raise ValueError(f"expected n_subsets >= 2 and size >= 2; got {n_subsets} and {size}.")
    generator = generator or torch.Generator().manual_seed(0)
    smaller = min(len(a), len(b))
    size = min(size, smaller // 2)
    a, b = a.double(), b.double()

    def draw(features: Tensor) -> Tensor:
        rows = torch.randperm(len(features), generator=generator, device=generator.device)
        return features[rows[:size].to(features.device)]

    values = torch.stack([_mmd(draw(a), draw(b)) for _ in range(n_subsets)])
    value = values.mean().item()
    error = values.std().item() * math.sqrt(1 / n_subsets + size / (smaller - size))
    return Estimate(value, value - 1.96 * error, value + 1.96 * error)


def neighbourhood(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m _d"], k: int = 5
) -> Neighbourhood:
    r"""Precision, recall, density and coverage by k nearest neighbours.

    With :math:`R_k(u)` the distance from u to its k-th nearest neighbour in its own set, itself
    excluded:

    - precision: share of fakes g with :math:`\lVert g - r \rVert < R_k(r)` for some real r
    - recall: share of reals r with :math:`\lVert r - g \rVert < R_k(g)` for some fake g
    - density: :math:`\frac{1}{km} \sum_g \#\{r : \lVert g - r \rVert < R_k(r)\}`, may exceed 1
    - coverage: share of reals r with :math:`\lVert r - g \rVert < R_k(r)` for some fake g

    For two sets of equal size from one distribution, density is 1 and coverage about
    1 - 2^(-k) on average, 0.97 for k = 5. Intervals are for new examples of the set that is
    averaged over, with the other set given.

    References:
        - Improved precision and recall metric (Kynkäänniemi et al., 2019), https://arxiv.org/abs/1904.06991
        - Reliable fidelity and diversity metrics (Naeem et al., 2020), https://arxiv.org/abs/2002.09797

    Args:
        real: Features of real examples.
        fake: Features of generated ones.
        k: Neighbours that make the radius.

    Raises:
        ValueError: If widths differ or a set has not more than ``k`` rows.
    """
    _check_k(real, fake, k)
    real, fake = real.double(), fake.double()
    radius_real, radius_fake = _radius(real, k), _radius(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.float64, device=real.device)
    recalled, covered = [], []
    for rows in torch.arange(len(real), device=real.device).split(CHUNK):
        distance = _squared(real[rows], fake)
        within_real = distance < radius_real[rows, None]
        inside += within_real.sum(0)
        covered.append(within_real.any(1))
        recalled.append((distance < radius_fake).any(1))
    return Neighbourhood(
        precision=proportion(inside > 0),
        recall=proportion(torch.cat(recalled)),
        density=mean(inside / k),
        coverage=proportion(torch.cat(covered)),
    )


def conditional_frechet_distance(
    real: Float[Tensor, "n d"],
    real_y: Int[Tensor, " _n"],
    fake: Float[Tensor, "m _d"],
    fake_y: Int[Tensor, " _m"],
) -> Estimate:
    r"""Mean over classes of the Fréchet distance within a class.

    .. math:: \frac1K \sum_k \mathrm{FID}\big(\{r : y_r = k\}, \{g : y_g = k\}\big)

    Unlike :func:`frechet_distance` of all classes together, it sees a sample that looks like
    another class than it was drawn for. The same bias and floor apply, within every class.

    References:
        Conditional Frechet Inception Distance (Soloveitchik et al., 2021),
        https://arxiv.org/abs/2103.11521, in the form for discrete conditions

    Args:
        real: Features of real examples, at least 20 of each class.
        real_y: Their classes.
        fake: Features of generated ones.
        fake_y: The classes that they were generated for.

    Raises:
        ValueError: If widths differ, or a class has fewer than 20 examples in either set.

    Example:
        >>> import torch
        >>> a, y = torch.randn(4000, 2), torch.arange(4000) % 2
        >>> round(conditional_frechet_distance(a, y, a + y[:, None], y).value)
        1
    """
    parts = [
        frechet_distance(real[real_y == label], fake[fake_y == label]) for label in real_y.unique()
    ]
    value = sum(part.value for part in parts) / len(parts)
    # Classes are independent of each other, so the squares of their errors add.
    error = sum(((part.high - part.low) / 2) ** 2 for part in parts) ** 0.5 / len(parts)
    return Estimate(value, max(value - error, 0.0), value + error)


def conditional_coverage(
    real: Float[Tensor, "n d"],
    real_y: Int[Tensor, " _n"],
    fake: Float[Tensor, "m _d"],
    fake_y: Int[Tensor, " _m"],
    k: int = 5,
) -> Estimate:
    r"""Share of real examples with a fake of their class nearer than their k-th real neighbour.

    .. math:: P_r\bigl[\min_{g:\, y_g = y_r} \lVert r - g \rVert < R_k(r)\bigr]

    where :math:`R_k(r)` is the distance to the k-th nearest real example of the same class,
    itself excluded. Give one fake per real example, such as one nuisance resample of each: the
    number then says whether resampling spans the style of real data. Coverage grows with the
    number of fakes. The floor is the same function with real examples for fakes.

    Args:
        real: Features of real examples, more than ``k`` of each class.
        real_y: Their classes.
        fake: Features of generated ones.
        fake_y: The classes that they were generated for.
        k: Neighbours that make the radius.

    Raises:
        ValueError: If lengths or widths differ, or a class has not more than ``k`` real examples.
    """
    for features, y in ((real, real_y), (fake, fake_y)):
        if len(features) != len(y):
            raise ValueError(
                f"expected one label per row; got {len(features)} rows and {len(y)} labels."
            )
    _check(real, fake, least=1)
    covered = []
    for label in real_y.unique():
        own, other = real[real_y == label].double(), fake[fake_y == label].double()
        if len(own) <= k:
            raise ValueError(
                f"class {int(label)} has {len(own)} real examples, coverage with k = {k} needs "
                f"{k + 1}. Measure on more data, or with a smaller k."
            )
        if len(other) == 0:
            covered.append(torch.zeros(len(own), dtype=torch.bool, device=real.device))
            continue
        nearest = [_squared(part, other).min(1).values for part in own.split(CHUNK)]
        covered.append(torch.cat(nearest) < _radius(own, k))
    return proportion(torch.cat(covered))


def _frechet(a: Tensor, b: Tensor) -> float:
    cov_a, cov_b = (torch.atleast_2d(torch.cov(features.T)) for features in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # The eigenvalues of S_a S_b are those of the symmetric S_a^(1/2) S_b S_a^(1/2).
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return max((shift + cov_a.trace() + cov_b.trace() - 2 * cross).item(), 0.0)


def _mmd(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)
    own = [
        (_kernel_sum(u, u) - (u.square().mean(1) + 1).pow(3).sum()) / (n * (n - 1)) for u in (a, b)
    ]
    return own[0] + own[1] - 2 * _kernel_sum(a, b) / n**2


def _kernel_sum(u: Tensor, v: Tensor) -> Tensor:
    """Sum of the cubic kernel over all pairs, in blocks that stay in the cache."""
    one = u.new_ones(())
    total = u.new_zeros(())
    for part in u.split(64):
        base = torch.addmm(one, part, v.T, alpha=1 / u.shape[1])
        total += torch.dot(base.square().view(-1), base.view(-1))
    return total


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances by a matrix product, in doubles: only their order matters."""
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(norms, a, b.T, alpha=-2)


def _radius(features: Tensor, k: int) -> Tensor:
    """Squared distance of every row to its k-th nearest neighbour, itself excluded."""
    parts = []
    for rows in torch.arange(len(features), device=features.device).split(CHUNK):
        distance = _squared(features[rows], features)
        distance[torch.arange(len(rows), device=rows.device), rows] = math.inf
        parts.append(distance.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(parts)


def _check(a: Tensor, b: Tensor, least: int) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"both sets need features of one width; got {a.shape[1]} and {b.shape[1]}. "
            "Did they go through the same network?"
        )
    if min(len(a), len(b)) < least:
        raise ValueError(f"expected at least {least} rows in each set; got {len(a)} and {len(b)}.")


def _check_k(a: Tensor, b: Tensor, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}.")
    _check(a, b, least=k + 1)

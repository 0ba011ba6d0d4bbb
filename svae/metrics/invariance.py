"""Does the class survive a new nuisance, and is the new nuisance worth the name.

Preservation alone is worthless: a model whose nuisance has collapsed keeps every class. So each of
these numbers is read beside its opposite, the diversity of the same resamples.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.factorization import Factorization, resample_nuisance, swap_nuisance
from svae.metrics.estimate import Estimate, bootstrap, clustered_proportion, proportion

__all__ = [
    "diversity_ratio",
    "feature_diversity_ratio",
    "preservation",
    "preservation_swapped",
    "reconstruction_preservation",
    "spread_ratio",
    "switch_rate",
]

# Images decoded at a time: bounds the memory whatever the size of the set.
CHUNK = 1000


@torch.no_grad()
def preservation(
    factorization: Factorization,
    x: Float[Tensor, "n_images ..."],
    judge: Callable[[Tensor], Tensor],
    n: int = 8,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Share of draws from the nuisance prior that keep the judge's class (PPR).

    .. math:: \mathbb{E}_x \, \mathbb{E}_{z_n \sim p} \,
        1[\arg\max f(D(z_c(x), z_n)) = \arg\max f(x)]

    The judge decides on both sides, so its own mistakes on x do not count against the model. The
    interval takes images, not draws, as independent.

    Args:
        factorization: What is measured.
        x: Images (or vectors).
        judge: Images to logits. An independent network; or ``factorization.predict``, which is
            self-consistency and no evidence by itself.
        n: Draws per image, at least 1.
        generator: Source of the draws.

    Raises:
        ValueError: If ``x`` is empty or ``n`` is less than 1.
    """
    _check(x, n)
    kept = []
    for part, drawn in _resamples(factorization, x, n, generator):
        decided = judge(drawn.flatten(0, 1)).argmax(1).view(n, -1)
        kept.append(decided == judge(part).argmax(1))
    return clustered_proportion(torch.cat(kept, 1))


@torch.no_grad()
def preservation_swapped(
    factorization: Factorization,
    x: Float[Tensor, "n_images ..."],
    judge: Callable[[Tensor], Tensor],
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Preservation with the nuisance of another image in place of a draw from the prior.

    .. math:: \mathbb{E}_i \, 1[\arg\max f(D(z_c(x_i), z_n(x_{\pi(i)}))) = \arg\max f(x_i)]

    with a random permutation :math:`\pi` without fixed points, so every nuisance serves once.
    Where prior and aggregate posterior differ, this and :func:`preservation` do too.

    Args:
        factorization: What is measured.
        x: At least two images, in any order; classes are paired as they come.
        judge: Images to logits.
        generator: Source of the permutation.

    Raises:
        ValueError: If there are fewer than two images.
    """
    if len(x) < 2:
        raise ValueError(f"swapping the nuisance needs at least 2 images; got {len(x)}.")
    # Each image takes the nuisance of its predecessor in a random cycle.
    cycle = _randperm(len(x), generator).to(x.device)
    other = torch.empty_like(cycle)
    other[cycle] = cycle.roll(1)
    kept = [
        judge(swap_nuisance(factorization, x[rows], x[other[rows]])).argmax(1)
        == judge(x[rows]).argmax(1)
        for rows in torch.arange(len(x), device=x.device).split(CHUNK)
    ]
    return proportion(torch.cat(kept))


@torch.no_grad()
def reconstruction_preservation(
    factorization: Factorization,
    x: Float[Tensor, "n_images ..."],
    judge: Callable[[Tensor], Tensor],
) -> Estimate:
    r"""Share of plain reconstructions that keep the judge's class (PPR0).

    The invariance gap is this minus :func:`preservation`.

    Args:
        factorization: What is measured.
        x: Images.
        judge: Images to logits.

    Raises:
        ValueError: If ``x`` is empty.
    """
    _check(x)
    kept = [
        judge(factorization.decode(factorization.encode(part))).argmax(1) == judge(part).argmax(1)
        for part in x.split(CHUNK)
    ]
    return proportion(torch.cat(kept))


@torch.no_grad()
def switch_rate(
    factorization: Factorization,
    x: Float[Tensor, "n_images ..."],
    y: Int[Tensor, " _n_images"],
    judge: Callable[[Tensor], Tensor],
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Does the class follow ``z_class`` when the nuisance comes from another class.

    .. math:: P[\arg\max f(D(z_c(x_j), z_n(x_i))) = y_j \mid y_i \neq y_j]

    One random partner i for every image j.

    Args:
        factorization: What is measured.
        x: Images.
        y: Their labels, of two classes at least.
        judge: Images to logits.
        generator: Source of the partners.

    Raises:
        ValueError: If lengths differ or there is only one class.
    """
    _check(x, y=y)
    partner = _partners(y, generator)
    hits = [
        judge(swap_nuisance(factorization, x[rows], x[partner[rows]])).argmax(1) == y[rows]
        for rows in torch.arange(len(x), device=x.device).split(CHUNK)
    ]
    return proportion(torch.cat(hits))


@torch.no_grad()
def diversity_ratio(
    factorization: Factorization,
    x: Float[Tensor, "n_images ..."],
    y: Int[Tensor, " _n_images"],
    n: int = 8,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Spread of the resamples of one image over the spread of real images of its class.

    .. math:: \sqrt{\frac{\mathrm{mean}_{i,p} \mathrm{Var}_s\, D(z_c(x_i), z_n^s)_p}
        {\mathrm{mean}_{i,p} \frac{m_{y_i}}{m_{y_i} - 1} (x_{ip} - \bar x_{y_i p})^2}}

    over images i, pixels p and n draws s, with the unbiased variance on both sides; m and
    :math:`\bar x` are size and mean image of a class within ``x``. 0 is a collapsed nuisance, 1 as
    much variation as the class has. Decoded means lack pixel noise, so values a little below 1 are
    no fault. The interval is from a bootstrap over images.

    Args:
        factorization: What is measured.
        x: Images, at least two of every class that occurs.
        y: Their labels.
        n: Draws per image, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If lengths differ, a class has a single image, ``n`` is less than 2, or the
            images of each class are all equal.
    """
    _check(x, n, y, least=2)
    return spread_ratio((drawn for _, drawn in _resamples(factorization, x, n, generator)), x, y)


@torch.no_grad()
def spread_ratio(
    draws: Iterable[Float[Tensor, "n chunk ..."]],
    x: Float[Tensor, "n_images ..."],
    y: Int[Tensor, " n_images"],
) -> Estimate:
    """The ratio of :func:`diversity_ratio` for draws of any origin.

    Args:
        draws: Two or more for each image, part by part in their order.
        x: Real images, at least two of every class that occurs.
        y: Their labels, or numbers of groups.

    Raises:
        ValueError: If the images of each class are all equal.
    """
    spread = [drawn.double().var(0).flatten(1).mean(1) for drawn in draws]
    flat = x.flatten(1).double()
    real = torch.empty(len(x), dtype=torch.float64, device=x.device)
    for rows in _classes(y):
        errors = (flat[rows] - flat[rows].mean(0)).square().mean(1)
        real[rows] = errors * len(rows) / (len(rows) - 1)
    _check_spread(real)
    return bootstrap(
        lambda top, bottom: (top.mean() / bottom.mean()).sqrt().item(),
        torch.cat(spread),
        real,
        bounds=(0.0, float("inf")),
    )


@torch.no_grad()
def feature_diversity_ratio(
    factorization: Factorization,
    x: Float[Tensor, "n_images ..."],
    y: Int[Tensor, " _n_images"],
    features: Callable[[Tensor], Tensor],
    n: int = 8,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Mean distance between resamples of one image over that between real images of a class.

    .. math:: \frac{\mathrm{mean}_i \mathrm{mean}_{s \neq t}
        \lVert \phi(x_i^s) - \phi(x_i^t) \rVert}
        {\mathrm{mean}_i \mathrm{mean}_{j \neq i,\, y_j = y_i}
        \lVert \phi(x_i) - \phi(x_j) \rVert}

    The interval is from a bootstrap over images.

    Args:
        factorization: What is measured.
        x: Images, at least two of every class that occurs.
        y: Their labels.
        features: Images to features :math:`\phi`, such as ``judge.features``.
        n: Draws per image, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If lengths differ, a class has a single image, ``n`` is less than 2, or the
            features of each class are all equal.
    """
    _check(x, n, y, least=2)
    spread = []
    for part, drawn in _resamples(factorization, x, n, generator):
        codes = features(drawn.flatten(0, 1)).double().unflatten(0, (n, len(part))).transpose(0, 1)
        spread.append(torch.cdist(codes, codes).sum((1, 2)) / (n * (n - 1)))
    codes = torch.cat([features(part) for part in x.split(CHUNK)]).double()
    real = torch.empty(len(x), dtype=torch.float64, device=x.device)
    for rows in _classes(y):
        for some in rows.split(CHUNK):
            real[some] = torch.cdist(codes[some], codes[rows]).sum(1) / (len(rows) - 1)
    _check_spread(real)
    return bootstrap(
        lambda top, bottom: (top.mean() / bottom.mean()).item(),
        torch.cat(spread),
        real,
        bounds=(0.0, float("inf")),
    )


def _resamples(
    factorization: Factorization, x: Tensor, n: int, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, Tensor]]:
    for part in x.split(max(1, CHUNK // n)):
        yield part, resample_nuisance(factorization, part, n, generator)


def _randperm(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(n, generator=generator, device=generator.device if generator else "cpu")


def _partners(y: Tensor, generator: torch.Generator | None) -> Tensor:
    """For every image a uniform draw among the images of other classes."""
    if int(y.min()) == int(y.max()):
        raise ValueError(
            f"switching needs images of at least 2 classes; all labels are {int(y[0])}. "
            "Was the set sorted by class before it was cut?"
        )
    order = y.argsort()
    _, group, sizes = y.unique(return_inverse=True, return_counts=True)
    start, size = (sizes.cumsum(0) - sizes)[group], sizes[group]
    uniform = torch.rand(
        len(y),
        generator=generator,
        dtype=torch.float64,
        device=generator.device if generator else "cpu",
    ).to(y.device)
    # A place among the sorted images without those of the own class, which stand in one block.
    place = (uniform * (len(y) - size)).long()
    return order[torch.where(place >= start, place + size, place)]


def _classes(y: Tensor) -> list[Tensor]:
    groups = [(y == label).nonzero().squeeze(1) for label in y.unique()]
    if min(len(rows) for rows in groups) < 2:
        raise ValueError(
            "the spread within a class needs at least 2 images of each; "
            f"the classes have {[len(rows) for rows in groups]}. Measure on more images."
        )
    return groups


def _check(x: Tensor, n: int = 1, y: Tensor | None = None, least: int = 1) -> None:
    if len(x) == 0:
        raise ValueError("expected at least one image; got an empty batch.")
    if n < least:
        raise ValueError(f"expected n >= {least} draws per image; got {n}.")
    if y is not None and len(x) != len(y):
        raise ValueError(f"expected one label per image; got {len(x)} images, {len(y)} labels.")


def _check_spread(real: Tensor) -> None:
    if real.sum() == 0:
        raise ValueError(
            "the real images of each class are all equal, so there is no spread to compare with."
        )

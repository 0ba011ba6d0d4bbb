"""How many dims a concept gets: what its pairs have in common, beyond what chance gives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Score", "allot", "score"]

_SIGMAS = 4.0  # standard deviations of the null that evidence must exceed


@dataclass(frozen=True)
class Score:
    """What the pairs of a concept say about a representation.

    Attributes:
        value: Mean correlation of the units over the pairs, in [-1, 1].
        null: Mean of the same with the pairs shuffled.
        null_scale: Standard deviation of the same over the shufflings.
        share: Evidence in [0, 1]: what of the representation belongs to the concept, 0 where
            the value is within four standard deviations of the null.
    """

    value: float
    null: float
    null_scale: float
    share: float


def score(
    first: Float[Tensor, "pairs D"],
    second: Float[Tensor, "pairs D"],
    differ: bool = False,
    n_null: int = 20,
    seed: int = 0,
) -> Score:
    r"""How much of a representation a concept accounts for, against shuffled pairs.

    .. math:: s = \frac1D \sum_i
        \frac{\mathrm{Cov}(z^a_i, z^b_i)}{\sqrt{\mathrm{Var}(z^a_i)\,\mathrm{Var}(z^b_i)}}

    For pairs that *share* the concept the evidence is :math:`(s - s_0) / (1 - s_0)`, where
    :math:`s_0` is the mean over ``n_null`` shufflings of the pairs. For pairs that *differ* in the
    concept only it is the part that does not correlate, :math:`1 - s`, and the null is no change
    at all, up to rounding. In the paper's allocation a concept that the representation knows
    nothing of still gets a share of :math:`1 / (K + e)`; here it gets none.

    References:
        A Disentangling Invertible Interpretation Network for Explaining Latent Representations
        (Esser et al., 2020), https://arxiv.org/abs/2004.13166

    Args:
        first: Coordinates of one example of each pair.
        second: Those of the other.
        differ: Whether the pairs differ in the concept and share all else.
        n_null: Shufflings, at least 2.
        seed: Of the shufflings.

    Raises:
        ValueError: If the pairs are of unequal length or fewer than two.
    """
    if first.shape != second.shape or len(first) < 2 or n_null < 2:
        raise ValueError(
            f"expected two or more pairs of equal shape, got {tuple(first.shape)} and "
            f"{tuple(second.shape)} (and n_null >= 2, got {n_null})"
        )
    value = _correlation(first, second)
    generator = torch.Generator().manual_seed(seed)
    null = torch.tensor(
        [
            _correlation(first, second[torch.randperm(len(second), generator=generator)])
            for _ in range(n_null)
        ]
    )
    mean, scale = float(null.mean()), float(null.std())
    if differ:
        share = 1 - value
        significant = share > 1e-3
    else:
        share = (value - mean) / max(1 - mean, 1e-6)
        significant = value > mean + _SIGMAS * scale
    return Score(value, mean, scale, min(max(share, 0.0), 1.0) if significant else 0.0)


def allot(
    shares: Mapping[str, float], n_features: int, temperature: float = 1.0
) -> dict[str, int]:
    r"""Splits the dims among concepts by their evidence; what is left is the residual.

    .. math:: N_F = \left\lfloor D\, \frac{s_F^{1/\tau}}{1 + \sum_k s_k^{1/\tau}} \right\rfloor

    a softmax with temperature :math:`\tau` over the logarithms of the evidence, where the residual
    has evidence 1. A concept without evidence gets no dims, one with some at least one.

    Args:
        shares: Evidence of each concept, in [0, 1].
        n_features: Number of dims D.
        temperature: :math:`\tau > 0`; smaller leaves more to the residual.

    Returns:
        Dims of each concept; at least one dim is left.

    Raises:
        ValueError: If there are more concepts with evidence than dims, or a number is out of
            range.

    Example:
        >>> allot({"digit": 0.7, "colour": 0.3, "nothing": 0.0}, 64)
        {'digit': 22, 'colour': 9, 'nothing': 0}
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive, got {temperature}")
    if any(not 0 <= share <= 1 for share in shares.values()):
        raise ValueError(f"evidence lies between 0 and 1, got {dict(shares)}")
    weights = {name: share ** (1 / temperature) for name, share in shares.items()}
    total = 1 + sum(weights.values())
    dims = {
        name: max(math.floor(n_features * weight / total), int(shares[name] > 0))
        for name, weight in weights.items()
    }
    if sum(dims.values()) >= n_features:
        raise ValueError(
            f"{len(dims)} concepts need {sum(dims.values())} dims and the residual at least one, "
            f"the representation has {n_features}. Leave a concept out, or take another layer."
        )
    return dims


def _correlation(first: Tensor, second: Tensor) -> float:
    a, b = first - first.mean(0), second - second.mean(0)
    scale = (a.square().mean(0) * b.square().mean(0)).sqrt()
    alive = scale > 1e-12
    return float(((a * b).mean(0)[alive] / scale[alive]).mean()) if bool(alive.any()) else 0.0

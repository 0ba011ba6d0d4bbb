"""Are the predicted probabilities right: accuracy, likelihood and calibration of logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from svae.metrics.estimate import Estimate, bootstrap, mean, proportion

__all__ = ["accuracy", "brier", "expected_calibration_error", "negative_log_likelihood"]


def accuracy(logits: Float[Tensor, "n classes"], y: Int[Tensor, " _n"]) -> Estimate:
    """Share of examples whose largest logit is that of the label, with Wilson's interval.

    Args:
        logits: Logits or log-probabilities.
        y: Labels in 0..K-1.

    Raises:
        ValueError: If lengths differ, there are no examples or labels are out of range.
    """
    _check(logits, y)
    return proportion(logits.argmax(1) == y)


def negative_log_likelihood(logits: Float[Tensor, "n classes"], y: Int[Tensor, " _n"]) -> Estimate:
    r"""Mean of :math:`-\log p(y \mid x)` in nats per example, with Student's t interval.

    Args:
        logits: Logits or log-probabilities.
        y: Labels in 0..K-1.

    Raises:
        ValueError: If lengths differ, there are no examples or labels are out of range.
    """
    _check(logits, y)
    return mean(F.cross_entropy(logits.double(), y.long(), reduction="none"))


def brier(logits: Float[Tensor, "n classes"], y: Int[Tensor, " _n"]) -> Estimate:
    r"""Mean of :math:`\sum_k (p_k - 1[y = k])^2`, from 0 to 2, with Student's t interval.

    References:
        Verification of forecasts expressed in terms of probability (Brier, 1950)

    Args:
        logits: Logits or log-probabilities.
        y: Labels in 0..K-1.

    Raises:
        ValueError: If lengths differ, there are no examples or labels are out of range.
    """
    _check(logits, y)
    errors = logits.double().softmax(1) - F.one_hot(y.long(), logits.shape[1])
    return mean(errors.square().sum(1))


def expected_calibration_error(
    logits: Float[Tensor, "n classes"],
    y: Int[Tensor, " _n"],
    n_bins: int = 15,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Distance between confidence and accuracy, binned by confidence.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \,
        \lvert \mathrm{accuracy}_b - \mathrm{confidence}_b \rvert

    with bins of equal width, open to the left, over the largest probability. The estimate is
    biased upwards: with n examples even a calibrated model has an ECE of order
    :math:`1/\sqrt{n}`. The interval is from 200 bootstrap resamples.

    References:
        On calibration of modern neural networks (Guo et al., 2017), https://arxiv.org/abs/1706.04599

    Args:
        logits: Logits or log-probabilities.
        y: Labels in 0..K-1.
        n_bins: Number of bins.
        generator: Source of the resamples.

    Raises:
        ValueError: If lengths differ, there are no examples, labels are out of range, or
            ``n_bins`` is less than 1.
    """
    _check(logits, y)
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1; got {n_bins}.")
    confidence, predicted = logits.double().softmax(1).max(1)
    excess = (predicted == y).double() - confidence
    bins = (confidence * n_bins).ceil().long().clamp(1, n_bins) - 1

    def error(excess: Tensor, bins: Tensor) -> float:
        sums = excess.new_zeros(n_bins).index_add_(0, bins, excess)
        return sums.abs().sum().item() / len(excess)

    return bootstrap(error, excess, bins, generator=generator, bounds=(0.0, 1.0))


def _check(logits: Tensor, y: Tensor) -> None:
    if len(logits) != len(y) or len(y) == 0:
        raise ValueError(
            f"logits and labels must have one length, at least 1; got {len(logits)} and {len(y)}."
        )
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[1] - 1}, one per column of the logits; "
            f"got {int(y.min())}..{int(y.max())}. Drop unlabelled examples (-1) before measuring."
        )

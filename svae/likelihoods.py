"""p(x given z): what the decoder's output means.

A likelihood turns the unbounded output of a decoder into a distribution over data whose event dims
are all the dims of one example, so that ``log_prob`` gives nats per example. The support of that
distribution is compared with the data before training.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from svae.nets import full_precision
from svae.saving import Described

__all__ = [
    "Bernoulli",
    "Columns",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
]

LEVELS = 255  # of an 8-bit image above 0


class Likelihood(nn.Module, ABC):
    """Maps a decoder's output to the distribution of one example.

    Attributes:
        density: Whether ``exp(log_prob)`` integrates, or sums, to one over the data's range, so
            that its nats can be compared between models. Those of a density in the unit of the
            data and those of a probability of 8-bit levels differ by log 256 per pixel.
    """

    density: bool = True

    @abstractmethod
    def forward(self, output: Tensor, event_dims: int = 3) -> TorchDistributionMixin:
        """The distribution of x, its last ``event_dims`` dims being one example."""


class Bernoulli(Described, Likelihood):
    r"""Independent Bernoulli pixels, by default also for grey values in [0, 1].

    .. math:: \log p(x \mid z) = \sum_d x_d \log m_d + (1 - x_d) \log(1 - m_d)

    On values strictly between 0 and 1 this is **no normalised density** (see
    :class:`ContinuousBernoulli`): its nats compare Bernoulli models with each other only. On data
    that are binarised (``binarise=True`` of a data module) it is a probability.

    Args:
        binary: Whether data must be 0 or 1.
    """

    def __init__(self, binary: bool = False) -> None:
        super().__init__()
        self.binary = self.density = binary

    def forward(self, output: Tensor, event_dims: int = 3) -> TorchDistributionMixin:
        kind = dist.Bernoulli if self.binary else _GreyBernoulli
        # Validation of the support would reject grey values.
        return kind(logits=full_precision(output), validate_args=False).to_event(event_dims)


class _GreyBernoulli(dist.Bernoulli):
    """Takes grey values."""

    support = constraints.unit_interval

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_GreyBernoulli":
        return super().expand(batch_shape, self._get_checked_instance(_GreyBernoulli, _instance))


class ContinuousBernoulli(Described, Likelihood):
    """Bernoulli pixels with the constant that makes grey values in [0, 1] a proper density.

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem & Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    def forward(self, output: Tensor, event_dims: int = 3) -> TorchDistributionMixin:
        return dist.ContinuousBernoulli(logits=full_precision(output)).to_event(event_dims)


class _Located(Described, Likelihood):
    """Noise of one scale around the decoder's output.

    Args:
        scale: Initial scale, in the unit of the data.
        learned: Whether the scale is learned.
        bounded: Whether the location is squashed into [0, 1] by a sigmoid, for images.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    def __init__(self, scale: float = 0.1, learned: bool = True, bounded: bool = True) -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale must be positive, got {scale}")
        self.bounded = bounded
        self.log_scale = nn.Parameter(torch.tensor(scale).log(), requires_grad=learned)

    @abstractmethod
    def noisy(self, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """The distribution of single values."""

    def forward(
        self, output: Float[Tensor, "*batch_and_event"], event_dims: int = 3
    ) -> TorchDistributionMixin:
        output = full_precision(output)
        loc = functional.sigmoid(output) if self.bounded else output
        # A floor keeps a perfect reconstruction from driving the density to infinity.
        scale = self.log_scale.exp().clamp(min=1e-3).expand_as(loc)
        return self.noisy(loc, scale).to_event(event_dims)


class Gaussian(_Located):
    """Independent Gaussian noise of one scale around the decoder's output.

    Args:
        scale: Initial standard deviation, in the unit of the data.
        learned: Whether the scale is learned.
        bounded: Whether the mean is squashed into [0, 1] by a sigmoid, for images.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    def noisy(self, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        return dist.Normal(loc, scale)


class Laplace(_Located):
    """Independent Laplace noise of one scale around the decoder's output.

    Its absolute error forgives a few pixels that are far off, where a Gaussian's square blurs all.

    Args:
        scale: Initial scale (mean absolute deviation), in the unit of the data.
        learned: Whether the scale is learned.
        bounded: Whether the mean is squashed into [0, 1] by a sigmoid, for images.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    def noisy(self, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        return dist.Laplace(loc, scale)


class DiscretisedLogistic(_Located):
    r"""The probability of an 8-bit level under a logistic density around the decoder's output.

    .. math:: p(x \mid m) = \sigma\Big(\frac{x + \frac{1}{510} - m}{s}\Big)
        - \sigma\Big(\frac{x - \frac{1}{510} - m}{s}\Big)

    for x in 0, 1/255, ..., 1. The lowest and the highest level take all of the tail beyond them,
    so that the levels' probabilities sum to one.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934; PixelCNN++ (Salimans et al., 2017),
        https://arxiv.org/abs/1701.05517

    Args:
        scale: Initial scale of the logistic density, pixels being in [0, 1].
        learned: Whether the scale is learned.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    def __init__(self, scale: float = 0.05, learned: bool = True) -> None:
        super().__init__(scale, learned, bounded=True)

    def noisy(self, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        return _LogisticLevels(loc, scale)


class _EightBit(constraints.Constraint):
    """Multiples of 1/255 in [0, 1]."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        steps = value * LEVELS
        return ((steps - steps.round()).abs() < 1e-2) & (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        return "8-bit levels k / 255"


class _LogisticLevels(TorchDistribution):
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    @property
    def support(self) -> constraints.Constraint:
        return _EightBit()

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "_LogisticLevels":
        return _LogisticLevels(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        width = 1 / LEVELS / self.scale
        above = (value - self.loc) / self.scale + width / 2
        below = above - width
        # The difference of two sigmoids, in factors none of which cancels.
        inner = -torch.expm1(-width)
        up = functional.logsigmoid(above)
        down = functional.logsigmoid(-below)
        middle = up + down + inner.log()
        lowest, highest = value < 0.5 / LEVELS, value > 1 - 0.5 / LEVELS
        return torch.where(lowest, up, torch.where(highest, down, middle))

    def sample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            loc = self.loc.expand(*sample_shape, *self.batch_shape)
            u = torch.rand_like(loc).clamp(1e-6, 1 - 1e-6)
            noisy = loc + self.scale * torch.logit(u)
            return (noisy.clamp(0, 1) * LEVELS).round() / LEVELS

    @property
    def mean(self) -> Tensor:
        """Mean of the logistic density clipped to [0, 1]; the levels' is within half a level."""
        scale = self.scale
        return scale * (
            functional.softplus(self.loc / scale) - functional.softplus((self.loc - 1) / scale)
        )


class Columns(Described, Likelihood):
    r"""Rows of a table: numeric columns first, then one group of columns per categorical one.

    .. math:: \log p(x \mid z) = \sum_{d \le N} \log \mathcal{N}(x_d; m_d, s_d^2)
        + \sum_c \sum_k x_{ck} \log \mathrm{softmax}(o_c)_k

    Every numeric column has a scale of its own, learned. The mean has the categories'
    probabilities.

    Args:
        n_numeric: Number of numeric columns :math:`N`.
        categories: Number of categories of each categorical column, 2 or more.
        scale: Initial standard deviation of the numeric columns, which are standardised.

    Raises:
        ValueError: If there is no column or a number is out of range.

    Example:
        >>> rows = Columns(n_numeric=1, categories=(3,))(torch.zeros(5, 4), event_dims=1)
        >>> rows.mean[0]
        tensor([0.0000, 0.3333, 0.3333, 0.3333])
    """

    def __init__(self, n_numeric: int, categories: Sequence[int] = (), scale: float = 0.5) -> None:
        super().__init__()
        categories = tuple(categories)
        if n_numeric < 0 or not (n_numeric or categories) or min((*categories, 2)) < 2:
            raise ValueError(
                "a table needs a numeric column or a categorical one with 2 or more categories, "
                f"got {n_numeric} and {list(categories)}"
            )
        self.n_numeric, self.categories = n_numeric, categories
        self.log_scale = nn.Parameter(torch.full((n_numeric,), math.log(scale)))

    @property
    def n_features(self) -> int:
        """Number of entries of one row."""
        return self.n_numeric + sum(self.categories)

    def forward(
        self, output: Float[Tensor, "*batch features"], event_dims: int = 1
    ) -> TorchDistributionMixin:
        if event_dims != 1 or output.shape[-1] != self.n_features:
            raise ValueError(
                f"rows have {self.n_features} entries ({self.n_numeric} numeric, categories "
                f"{list(self.categories)}), the decoder gives {tuple(output.shape)}. Build it "
                "with the table's x_shape."
            )
        scale = self.log_scale.exp().clamp(min=1e-2)
        return _Rows(full_precision(output), scale, self.categories)


class _RowSupport(constraints.Constraint):
    """Finite numbers, then groups with exactly one 1 and 0 elsewhere."""

    event_dim = 1

    def __init__(self, n_numeric: int, categories: tuple[int, ...]) -> None:
        self.n_numeric, self.categories = n_numeric, categories

    def check(self, value: Tensor) -> Tensor:
        good = value.isfinite().all(-1)
        groups = value[..., self.n_numeric :].split(list(self.categories), -1)
        for group in groups if self.categories else ():
            good &= ((group == 0) | (group == 1)).all(-1) & (group.sum(-1) == 1)
        return good

    def __repr__(self) -> str:
        return (
            f"{self.n_numeric} finite numbers and one-hot groups of sizes {list(self.categories)}"
        )


class _Rows(TorchDistribution):
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, output: Tensor, scale: Tensor, categories: tuple[int, ...]) -> None:
        self.output, self.scale, self.categories = output, scale, categories
        self.n_numeric = scale.shape[-1]
        super().__init__(output.shape[:-1], output.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return _RowSupport(self.n_numeric, self.categories)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "_Rows":
        output = self.output.expand(*batch_shape, self.output.shape[-1])
        return _Rows(output, self.scale, self.categories)

    def _logits(self) -> list[Tensor]:
        parts = self.output[..., self.n_numeric :]
        return list(parts.split(list(self.categories), -1)) if self.categories else []

    def _numbers(self) -> dist.Normal:
        return dist.Normal(self.output[..., : self.n_numeric], self.scale, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        total = self._numbers().log_prob(value[..., : self.n_numeric]).sum(-1)
        start = self.n_numeric
        for logits in self._logits():
            chosen = value[..., start : start + logits.shape[-1]]
            total = total + (chosen * logits.log_softmax(-1)).sum(-1)
            start += logits.shape[-1]
        return total

    def sample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            parts = [self._numbers(), *(dist.OneHotCategorical(logits=g) for g in self._logits())]
            return torch.cat([part.sample(Size(sample_shape)) for part in parts], -1)

    @property
    def mean(self) -> Tensor:
        """Means of the numeric columns and probabilities of the categories."""
        probabilities = [logits.softmax(-1) for logits in self._logits()]
        return torch.cat([self.output[..., : self.n_numeric], *probabilities], -1)

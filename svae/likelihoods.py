"""p(x given z): what the decoder's output means.

A likelihood turns the unbounded output of a decoder into a distribution over data whose event dims
are all the dims of one example, so that ``log_prob`` gives nats per example.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn import functional

from svae.nets import full_precision
from svae.saving import Described

__all__ = ["Bernoulli", "ContinuousBernoulli", "Gaussian", "Likelihood"]


class Likelihood(nn.Module, ABC):
    """Maps a decoder's output to the distribution of one example.

    Attributes:
        density: Whether ``exp(log_prob)`` integrates to one over the data's range, so that its
            nats can be compared between likelihoods.
    """

    density: ClassVar[bool] = True

    @abstractmethod
    def forward(self, output: Tensor, event_dims: int = 3) -> TorchDistributionMixin:
        """The distribution of x, its last ``event_dims`` dims being one example."""


class Bernoulli(Described, Likelihood):
    r"""Independent Bernoulli pixels, also for grey values in [0, 1].

    .. math:: \log p(x \mid z) = \sum_d x_d \log m_d + (1 - x_d) \log(1 - m_d)

    On values strictly between 0 and 1 this is **no normalised density** (see
    :class:`ContinuousBernoulli`): its nats compare Bernoulli models with each other only.
    """

    density: ClassVar[bool] = False

    def forward(self, output: Tensor, event_dims: int = 3) -> TorchDistributionMixin:
        # Validation of the support would reject grey values.
        return dist.Bernoulli(logits=full_precision(output), validate_args=False).to_event(
            event_dims
        )


class ContinuousBernoulli(Described, Likelihood):
    """Bernoulli pixels with the constant that makes grey values in [0, 1] a proper density.

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem & Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    def forward(self, output: Tensor, event_dims: int = 3) -> TorchDistributionMixin:
        return dist.ContinuousBernoulli(logits=full_precision(output)).to_event(event_dims)


class Gaussian(Described, Likelihood):
    """Independent Gaussian noise of one scale around the decoder's output.

    Args:
        scale: Initial standard deviation, in the unit of the data.
        learned: Whether the scale is learned.
        bounded: Whether the mean is squashed into [0, 1] by a sigmoid, for images.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    def __init__(self, scale: float = 0.1, learned: bool = True, bounded: bool = True) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.bounded = bounded
        self.log_scale = nn.Parameter(torch.tensor(scale).log(), requires_grad=learned)

    def forward(
        self, output: Float[Tensor, "*batch_and_event"], event_dims: int = 3
    ) -> TorchDistributionMixin:
        output = full_precision(output)
        loc = functional.sigmoid(output) if self.bounded else output
        # A floor keeps a perfect reconstruction from driving the density to infinity.
        scale = self.log_scale.exp().clamp(min=1e-3).expand_as(loc)
        return dist.Normal(loc, scale).to_event(event_dims)

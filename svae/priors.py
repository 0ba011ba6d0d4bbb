r"""p(style given class): the prior whose base noise is the nuisance latent.

The guide draws the raw style code u, which may know the class. A prior with a flow writes u as
:math:`u = \tau(z_\mathrm{nuisance}; c)` with :math:`z_\mathrm{nuisance} \sim \mathcal{N}(0, I)`
whatever the class probabilities c are, and maximum likelihood of u given c is what pushes the
class out of the noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn
from torch.distributions import constraints

from svae.flows import ConditionalFlow, held_start
from svae.saving import Described

__all__ = ["FlowPrior", "PushForward", "StandardPrior", "StylePrior", "noise_of", "value_of"]


class PushForward(TorchDistribution):
    r"""Distribution of :math:`\tau(\epsilon; c)` for :math:`\epsilon \sim \mathcal{N}(0, I)`.

    Args:
        flow: The map; its ``forward`` goes from value to noise.
        context: What the map is given, shape ``(*batch, context)``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector

    def __init__(self, flow: ConditionalFlow, context: Tensor) -> None:
        self.flow, self.context = flow, context
        super().__init__(context.shape[:-1], Size([flow.features]), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "PushForward":
        return PushForward(self.flow, self.context.expand(*batch_shape, self.context.shape[-1]))

    def log_prob(self, value: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        context = self.context.expand(*shape, -1)
        return self.flow.log_prob(value.expand(*shape, -1), context)

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        noise = torch.randn(*shape, self.flow.features).to(self.context)
        return self.flow.inverse(noise, self.context.expand(*shape, -1))[0]

    @property
    def mean(self) -> Tensor:
        """The image of the base mean; the mean itself has no closed form."""
        zero = self.context.new_zeros(*self.batch_shape, self.flow.features)
        return self.flow.inverse(zero, self.context)[0]


class StylePrior(nn.Module, ABC):
    """Prior of the style code given the head's class probabilities."""

    n_nuisance: int

    @abstractmethod
    def forward(self, context: Float[Tensor, "*batch classes"]) -> TorchDistributionMixin:
        """The prior of ``style`` for each row of class probabilities."""


class StandardPrior(Described, StylePrior):
    """A standard normal: the nuisance latent is the style code itself.

    Nothing keeps the class out of the style code then, see :mod:`svae.independence`.

    Args:
        n_nuisance: Number of nuisance dims.
    """

    def __init__(self, n_nuisance: int) -> None:
        super().__init__()
        self.n_nuisance = n_nuisance

    def forward(self, context: Float[Tensor, "*batch classes"]) -> TorchDistributionMixin:
        loc = context.new_zeros(*context.shape[:-1], self.n_nuisance)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)


class FlowPrior(Described, StylePrior):
    """A class-conditional flow: the nuisance latent is its base noise.

    Args:
        flow: Its ``context`` is the number of classes, its ``features`` that of nuisance dims.
    """

    def __init__(self, flow: ConditionalFlow) -> None:
        super().__init__()
        self.flow, self.n_nuisance = flow, flow.features

    def forward(self, context: Float[Tensor, "*batch classes"]) -> TorchDistributionMixin:
        return PushForward(self.flow, context)


def noise_of(prior: TorchDistributionMixin, value: Tensor) -> Tensor:
    """The base noise of a style code; the code itself where the prior has no flow."""
    if not isinstance(prior, PushForward):
        return value
    with held_start():  # a flow starts from the first codes whose density is asked for
        return prior.flow(value, prior.context)[0]


def value_of(prior: TorchDistributionMixin, noise: Tensor) -> Tensor:
    """The style code of a base noise, the inverse of :func:`noise_of`."""
    return prior.flow.inverse(noise, prior.context)[0] if isinstance(prior, PushForward) else noise

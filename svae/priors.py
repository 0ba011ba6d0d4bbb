r"""p(style given class): the prior whose base noise is the nuisance latent.

The guide draws the raw style code u, which may know the class. A prior with a flow writes u as
:math:`u = \tau(z_\mathrm{nuisance}; c)` with :math:`z_\mathrm{nuisance} \sim \mathcal{N}(0, I)`
whatever the class probabilities c are, and maximum likelihood of u given c is what pushes the
class out of the noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from svae.flows import ConditionalFlow, held_start
from svae.saving import Described
from svae.sites import at_means

__all__ = [
    "FlowPrior",
    "MixturePrior",
    "PushForward",
    "StandardPrior",
    "StylePrior",
    "VampPrior",
    "draw_noise",
    "noise_of",
    "value_of",
]
Stochastic = Callable[..., Any]


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
        self._last: tuple[Tensor, Tensor] | None = None  # a draw and its log-probability
        super().__init__(context.shape[:-1], Size([flow.features]), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "PushForward":
        return PushForward(self.flow, self.context.expand(*batch_shape, self.context.shape[-1]))

    def log_prob(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        if self._last is not None and self._last[0] is value:
            return self._last[1]
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return self.flow.log_prob(value.expand(*shape, -1), self._given(shape))

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        like = self.context.new_zeros(()).expand(*shape, self.flow.features)
        noise = torch.randn_like(like)
        value, log_det = self.flow.inverse(noise, self._given(shape))
        base = dist.Normal(torch.zeros_like(like), 1.0, validate_args=False).log_prob(noise)
        self._last = value, base.sum(-1) - log_det
        return value

    @property
    def mean(self) -> Tensor:
        """The image of the base mean; the mean itself has no closed form."""
        zero = self.context.new_zeros(*self.batch_shape, self.flow.features)
        return self.value_of(zero)

    def noise_of(self, value: Tensor) -> Tensor:
        """The base noise of a value."""
        return self.flow(value, self._given(value.shape[:-1]))[0]

    def value_of(self, noise: Tensor) -> Tensor:
        """The value of a base noise, the inverse of :meth:`noise_of`."""
        return self.flow.inverse(noise, self._given(noise.shape[:-1]))[0]

    def _given(self, shape: Size | tuple[int, ...]) -> Tensor | None:
        """The context of as many rows, for a flow that takes one."""
        return self.context.expand(*shape, -1) if self.flow.context else None


class StylePrior(nn.Module, ABC):
    """Prior of the style code given the head's class probabilities.

    Only a prior with a flow moves the class out of the nuisance latent. Under any other the style
    code is the nuisance latent itself, so it must be the same for every class: see
    :mod:`svae.independence` for what else can keep the class out.
    """

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


class MixturePrior(Described, StylePrior):
    r"""A mixture of diagonal Gaussians, the same for every class.

    .. math:: p(u) = \sum_j \pi_j\, \mathcal{N}(u; m_j, \mathrm{diag}\, s_j^2)

    Use it where styles come in kinds, such as handwriting by pen or brush. All of it is learned.

    References:
        Gaussian mixtures as priors: VAE with a VampPrior (Tomczak & Welling, 2018), section 5,
        https://arxiv.org/abs/1705.07120

    Args:
        n_nuisance: Number of nuisance dims.
        n_components: Number of Gaussians.
        spread: Standard deviation of the initial means.
        seed: Seed of the initial means.

    Raises:
        ValueError: If ``n_components`` is less than 1.
    """

    def __init__(
        self, n_nuisance: int, n_components: int = 16, spread: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if n_components < 1:
            raise ValueError(f"a mixture needs 1 or more components, got {n_components}")
        self.n_nuisance = n_nuisance
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(n_components, n_nuisance, generator=generator)
        self.loc = nn.Parameter(spread * means)
        # softplus(0.5413) = 1.
        self.raw_scale = nn.Parameter(torch.full((n_components, n_nuisance), 0.5413))
        self.logits = nn.Parameter(torch.zeros(n_components))

    def forward(self, context: Float[Tensor, "*batch classes"]) -> TorchDistributionMixin:
        scale = functional.softplus(self.raw_scale) + 1e-3
        shape = (*context.shape[:-1], *self.loc.shape)
        parts = dist.Normal(self.loc.expand(shape), scale.expand(shape)).to_event(1)
        which = dist.Categorical(logits=self.logits.expand(shape[:-1]))
        return dist.MixtureSameFamily(which, parts)


class VampPrior(Described, StylePrior):
    r"""A mixture of the guide's own posteriors at learned pseudo-inputs, the same for every class.

    .. math:: p(u) = \frac1J \sum_j q(u \mid \tilde x_j)

    Use it where a standard normal is far from the aggregate posterior, which this comes closest to
    among priors without a flow. Where the style code depends on ``z_class``, that is at its mean.
    The guide runs in evaluation mode on the pseudo-inputs, so that they do not enter its batch
    statistics.

    References:
        VAE with a VampPrior (Tomczak & Welling, 2018), https://arxiv.org/abs/1705.07120

    Args:
        n_nuisance: Number of nuisance dims.
        x_shape: Shape of one input.
        n_components: Number of pseudo-inputs.
        seed: Seed of the initial pseudo-inputs.

    Raises:
        ValueError: If ``n_components`` is less than 1, or no guide is attached when it is used.
    """

    def __init__(
        self, n_nuisance: int, x_shape: Sequence[int], n_components: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        if n_components < 1:
            raise ValueError(f"a VampPrior needs 1 or more pseudo-inputs, got {n_components}")
        self.n_nuisance = n_nuisance
        generator = torch.Generator().manual_seed(seed)
        self.raw_inputs = nn.Parameter(torch.randn(n_components, *x_shape, generator=generator))
        self._guide: tuple[Stochastic, ...] = ()  # in a tuple: it is no part of the prior

    def attach(self, guide: Stochastic) -> None:
        """Takes the guide whose posteriors are mixed; :class:`svae.SVAE` does so."""
        self._guide = (guide,)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The learned inputs, in [0, 1]."""
        return self.raw_inputs.sigmoid()

    def forward(self, context: Float[Tensor, "*batch classes"]) -> TorchDistributionMixin:
        if not self._guide:
            raise ValueError(
                "a VampPrior mixes the posteriors of a guide and has none yet: build "
                "SVAE(model, guide) first, or call attach(guide)"
            )
        guide = self._guide[0]
        modes = {m: m.training for m in guide.modules()} if isinstance(guide, nn.Module) else {}
        for module in modes:
            module.training = False
        try:
            posterior = at_means(guide, self.pseudo_inputs)["style"]
        finally:
            for module, training in modes.items():
                module.training = training
        n = len(self.raw_inputs)
        which = dist.Categorical(logits=context.new_zeros(*context.shape[:-1], n))
        return dist.MixtureSameFamily(which, posterior.expand((*context.shape[:-1], n)))


class FlowPrior(Described, StylePrior):
    """A flow: the nuisance latent is its base noise.

    Class-conditional, it is what moves the class out of the nuisance. Unconditional
    (``context=0``), it only makes prior samples lie on the data of all classes together. Give it
    splines (``ConditionalFlow(..., bins=8)``) where codes have several modes within a class.

    Args:
        flow: Its ``context`` is the number of classes or 0, its ``features`` that of nuisance
            dims.
    """

    def __init__(self, flow: ConditionalFlow) -> None:
        super().__init__()
        self.flow, self.n_nuisance = flow, flow.features

    def forward(self, context: Float[Tensor, "*batch classes"]) -> TorchDistributionMixin:
        return PushForward(self.flow, context)


def noise_of(prior: TorchDistributionMixin, value: Tensor) -> Tensor:
    """The base noise of a style code: under a flow or a Gaussian what is standard normal.

    Under any other prior the noise is the code itself.
    """
    if isinstance(prior, PushForward):
        with held_start():  # a flow starts from the first codes whose density is asked for
            return prior.noise_of(value)
    normal = _diagonal_normal(prior)
    return value if normal is None else (value - normal.loc) / normal.scale


def value_of(prior: TorchDistributionMixin, noise: Tensor) -> Tensor:
    """The style code of a base noise, the inverse of :func:`noise_of`."""
    if isinstance(prior, PushForward):
        return prior.value_of(noise)
    normal = _diagonal_normal(prior)
    return noise if normal is None else normal.loc + normal.scale * noise


def draw_noise(prior: TorchDistributionMixin, n: int) -> Float[Tensor, "n *batch dims"]:
    """Draws of the base noise: standard normal, or of the prior where the code is the noise."""
    if isinstance(prior, PushForward) or _diagonal_normal(prior) is not None:
        return torch.randn_like(prior.mean.expand(n, *prior.mean.shape))
    return prior.sample(Size([n]))


def _diagonal_normal(prior: TorchDistributionMixin) -> torch.distributions.Normal | None:
    base = getattr(prior, "base_dist", None)
    single = isinstance(prior, torch.distributions.Independent) and len(prior.event_shape) == 1
    return base if single and isinstance(base, torch.distributions.Normal) else None

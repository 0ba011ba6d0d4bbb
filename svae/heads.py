r"""p(y given z_class): what the class latent says about the class.

A head owns the two sites ``z_class`` and ``y`` of the model. There are two ways to factorise their
joint density, and one interface: :meth:`Head.draw` makes the sites, :meth:`Head.log_joint` gives
:math:`\log p(z_\mathrm{class}, y = k)` for all classes at once, from which the logits and the
evidence with y summed out both follow.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from svae.nets import MLP
from svae.saving import Described

__all__ = ["GaussianHead", "Head", "NetworkHead"]


class Head(nn.Module, ABC):
    """The joint density of class latent and label.

    Attributes:
        n_class: Number of class dims.
        n_classes: Number of classes.
    """

    n_class: int
    n_classes: int

    @abstractmethod
    def draw(self, like: Tensor, y: Int[Tensor, " batch"] | None = None) -> Tensor:
        """Makes the sites ``z_class`` and ``y`` inside the caller's plate; gives ``z_class``.

        Args:
            like: A tensor whose first dim is the batch and whose device and type are used.
            y: Observed labels, or None to sample them.
        """

    @abstractmethod
    def log_joint(self, z_class: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch classes"]:
        r""":math:`\log p(z_\mathrm{class}, y = k)` for every class k, in nats."""

    def forward(self, z_class: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch classes"]:
        """Log-probabilities of the classes, normalised: logits of p(y given z_class)."""
        return self.log_joint(z_class).log_softmax(-1)


class GaussianHead(Described, Head):
    r"""One learned Gaussian per class; the label follows by Bayes' rule.

    .. math::
        y \sim \mathrm{Cat}(\pi), \qquad
        z_\mathrm{class} \mid y \sim \mathcal{N}(\mu_y, \mathrm{diag}\, \sigma_y^2), \qquad
        p(y \mid z_\mathrm{class}) \propto \pi_y\,
            \mathcal{N}(z_\mathrm{class}; \mu_y, \sigma_y^2)

    This is quadratic discriminant analysis with diagonal covariances in a learned space, and
    linear discriminant analysis with ``shared_scale``.

    References:
        Class-conditional Gaussians on a label's latent, as in Capturing Label Characteristics in
        VAEs (Joy et al., 2021), https://arxiv.org/abs/2006.10102; their means on a scaled simplex,
        as in Training Normalizing Flows with the Information Bottleneck for Competitive Generative
        Classification (Ardizzone et al., 2020), https://arxiv.org/abs/2001.06448

    Args:
        n_class: Number of class dims.
        n_classes: Number of classes, at least 2.
        separation: Standard deviation of the initial class means, in units of the initial scale.
        shared_scale: Whether all classes share one scale.
        min_scale: Lower bound of every standard deviation, against collapse.
        class_probabilities: p(y), uniform if None.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        n_class: int,
        n_classes: int,
        separation: float = 2.0,
        shared_scale: bool = False,
        min_scale: float = 1e-3,
        class_probabilities: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check(n_class, n_classes)
        self.n_class, self.n_classes, self.min_scale = n_class, n_classes, min_scale
        self.loc = nn.Parameter(separation * _spread(n_classes, n_class))
        rows = 1 if shared_scale else n_classes
        # softplus(0.5413) = 1.
        self.raw_scale = nn.Parameter(torch.full((rows, n_class), 0.5413))
        probabilities = torch.full((n_classes,), 1 / n_classes)
        if class_probabilities is not None:
            probabilities = torch.as_tensor(class_probabilities, dtype=torch.get_default_dtype())
            if probabilities.shape != (n_classes,) or (probabilities <= 0).any():
                raise ValueError(
                    f"class_probabilities must be {n_classes} positive numbers, got "
                    f"{list(class_probabilities)}"
                )
            probabilities = probabilities / probabilities.sum()
        self.log_prior: Tensor
        self.register_buffer("log_prior", probabilities.log())

    @property
    def scale(self) -> Float[Tensor, "classes dims"]:
        """Standard deviations of the class Gaussians."""
        scale = functional.softplus(self.raw_scale) + self.min_scale
        return scale.expand(self.n_classes, self.n_class)

    def draw(self, like: Tensor, y: Int[Tensor, " batch"] | None = None) -> Tensor:
        prior = dist.Categorical(logits=self.log_prior.expand(len(like), -1))
        y = pyro.sample("y", prior, obs=y)
        return pyro.sample("z_class", dist.Normal(self.loc[y], self.scale[y]).to_event(1))

    def log_joint(self, z_class: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch classes"]:
        standardised = (z_class.unsqueeze(-2) - self.loc) / self.scale
        log_density = -0.5 * standardised.square() - self.scale.log()
        normaliser = 0.5 * self.n_class * math.log(2 * math.pi)
        return log_density.sum(-1) - normaliser + self.log_prior


class NetworkHead(Described, Head):
    r"""A linear layer or a perceptron on a standard normal class latent.

    .. math::
        z_\mathrm{class} \sim \mathcal{N}(0, I), \qquad
        y \mid z_\mathrm{class} \sim \mathrm{Cat}(\mathrm{softmax}\, f(z_\mathrm{class}))

    Args:
        n_class: Number of class dims.
        n_classes: Number of classes, at least 2.
        hidden: Widths of the hidden layers; none makes the head linear.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, n_class: int, n_classes: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        _check(n_class, n_classes)
        self.n_class, self.n_classes = n_class, n_classes
        self.net = MLP([n_class, *hidden, n_classes])

    def draw(self, like: Tensor, y: Int[Tensor, " batch"] | None = None) -> Tensor:
        loc = next(self.parameters()).new_zeros(len(like), self.n_class)
        z_class = pyro.sample("z_class", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
        pyro.sample("y", dist.Categorical(logits=self.net(z_class)), obs=y)
        return z_class

    def log_joint(self, z_class: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch classes"]:
        normaliser = 0.5 * self.n_class * math.log(2 * math.pi)
        log_density = -0.5 * z_class.square().sum(-1, keepdim=True) - normaliser
        return log_density + self.net(z_class).log_softmax(-1)


def _spread(n: int, dims: int) -> Tensor:
    """Points far from each other: scaled unit vectors where they fit, else random directions."""
    if n <= dims:
        return torch.eye(n, dims) * math.sqrt(dims)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dims, generator=generator)


def _check(n_class: int, n_classes: int) -> None:
    if n_class < 1:
        raise ValueError(f"n_class, the number of class dims, must be at least 1, got {n_class}")
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}: one class says nothing")

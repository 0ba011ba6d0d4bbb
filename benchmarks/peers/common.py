"""What all peers share: networks of one size, a Gaussian posterior, one loss, one training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from svae.data import ArrayData, Batch
from svae.data.batch import as_floats
from svae.latent import Latent
from svae.nets import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from svae.training.fitting import Task, task_of

__all__ = ["Gaussian", "Peer", "Posterior", "Sizes", "bernoulli", "standard_normal"]

_LEAST, _MOST = -7.0, 3.0  # of a log-scale
_TRIES = 50  # rounds of draws until each wanted class was answered


class Sizes(NamedTuple):
    """What every model of a comparison is built with.

    Attributes:
        x_shape: Shape of one input.
        n_classes: Number of classes.
        n_class: Class dims of models that have them.
        n_nuisance: Other latent dims; models without class dims have the sum of both.
        width: Channels of the first convolution, or of all hidden layers for flat inputs.
        gain: Whether convolutional networks read and draw gain and shape apart.
    """

    x_shape: tuple[int, ...]
    n_classes: int
    n_class: int = 8
    n_nuisance: int = 16
    width: int = 32
    gain: bool = False

    @property
    def n_latent(self) -> int:
        """Latent dims of models without class dims."""
        return self.n_class + self.n_nuisance

    def encoder(self) -> Any:
        """An encoder to features."""
        if len(self.x_shape) == 3:
            return ConvEncoder(self.x_shape, width=self.width, gain=self.gain)
        return MLPEncoder(self.x_shape)

    def decoder(self, n_latent: int) -> Any:
        """A decoder from a latent of that many dims."""
        if len(self.x_shape) == 3:
            return ConvDecoder(self.x_shape, n_latent, width=self.width, gain=self.gain)
        return MLPDecoder(self.x_shape, n_latent)


class Gaussian(NamedTuple):
    """A diagonal Gaussian.

    Attributes:
        loc: Means.
        log_scale: Logarithms of standard deviations.
    """

    loc: Tensor
    log_scale: Tensor

    def draw(self) -> Tensor:
        """A reparametrised draw."""
        return self.loc + self.log_scale.exp() * torch.randn_like(self.loc)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density, summed over dims, in nats."""
        noise = (z - self.loc) / self.log_scale.exp()
        each = -0.5 * noise.square() - self.log_scale - 0.5 * math.log(2 * math.pi)
        return each.sum(-1)

    def divergence(self, other: "Gaussian") -> Tensor:
        """KL divergence to another, summed over dims, in nats."""
        ratio = 2 * (self.log_scale - other.log_scale)
        moved = ((self.loc - other.loc) / other.log_scale.exp()).square()
        return 0.5 * (ratio.exp() + moved - 1 - ratio).sum(-1)


def standard_normal(like: Tensor) -> Gaussian:
    """Zero means and unit scales."""
    return Gaussian(torch.zeros_like(like), torch.zeros_like(like))


class Posterior(nn.Linear):
    """From features to a diagonal Gaussian.

    Args:
        n_features: Number of features.
        n_latent: Number of latent dims.
    """

    def __init__(self, n_features: int, n_latent: int) -> None:
        super().__init__(n_features, 2 * n_latent)

    def forward(self, features: Tensor) -> Gaussian:  # type: ignore[override]
        loc, log_scale = super().forward(features).chunk(2, -1)
        return Gaussian(loc, log_scale.clamp(_LEAST, _MOST))


def mixture_log_prob(parts: Gaussian, z: Tensor) -> Tensor:
    """Log-density of a mixture of ``(K, D)`` diagonal Gaussians of equal weight, in nats."""
    each = Gaussian(parts.loc[:, None], parts.log_scale[:, None]).log_prob(z)
    return each.logsumexp(0) - math.log(len(parts.loc))


def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """Log-likelihood of values in [0, 1], summed over the input, in nats."""
    x = x.expand_as(logits)
    found = -functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return found.flatten(-x.dim() + 1 if x.dim() > 2 else -1).sum(-1)


class Peer(nn.Module, ABC):
    """A model of the comparison: a factorization with one loss, for :func:`svae.fit`.

    Args:
        sizes: What every model is built with.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch; labels are -1 where there are none."""

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """Logits of the classes."""

    def forward(self, x: Tensor) -> Tensor:
        """What a network is called for: logits."""
        return self.predict(x)

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """Both parts of the latent, at posterior means or drawn.

        Raises:
            NotImplementedError: If the model has no latent with two parts.
        """
        raise NotImplementedError(f"{type(self).__name__} does not split a latent")

    def decode(self, latent: Latent) -> Tensor:
        """Pictures in [0, 1].

        Raises:
            NotImplementedError: If the model has no decoder.
        """
        raise NotImplementedError(f"{type(self).__name__} has no decoder")

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws of the nuisance part: standard normal here."""
        shape = (n, len(latent.z_class), latent.z_nuisance.shape[1])
        return torch.randn(shape, generator=generator).to(latent.z_nuisance)

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """New pictures of given classes.

        Raises:
            NotImplementedError: If the model generates none.
        """
        raise NotImplementedError(f"{type(self).__name__} generates nothing")

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """Log of p(x, z) / q(z given x) for n draws, ``(n, batch)``, in nats.

        Raises:
            NotImplementedError: If the model bounds no likelihood.
        """
        raise NotImplementedError(f"{type(self).__name__} has no bound on the likelihood")

    def one_hot(self, y: Tensor) -> Tensor:
        """Labels as vectors; zeros for those that are not known."""
        known = functional.one_hot(y.clamp(min=0), self.sizes.n_classes)
        return (known * (y >= 0).unsqueeze(-1)).float()


class LabelledInputs:
    """What a peer is trained on: pictures and labels."""

    def __call__(self, batch: Batch) -> Sequence[Tensor]:
        assert batch.y is not None
        return [as_floats(batch.x), batch.y]


@task_of.register
def _(model: Peer, data: ArrayData, objective: None, seed: int) -> Task:
    return Task(model.loss, LabelledInputs(), data)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over the examples with a label; zero where there is none."""
    found = functional.cross_entropy(logits, y.clamp(min=0), reduction="none") * (y >= 0)
    return found.sum() / (y >= 0).sum().clamp(min=1)


def answering(draw: Any, predict: Any, y: Tensor, n_each: int = 500) -> Tensor:
    """Draws of a model without classes that its classifier answers with the wanted ones.

    A class that is never answered gets draws that are answered with another.

    Args:
        draw: Number to pictures.
        predict: Pictures to logits.
        y: Wanted classes.
        n_each: Draws of a round.
    """
    found: list[Tensor | None] = [None] * len(y)
    waiting = {k: (y == k).nonzero().flatten().tolist() for k in y.unique().tolist()}
    spare = draw(1)
    for _ in range(_TRIES):
        if not any(waiting.values()):
            break
        pictures = draw(n_each)
        for picture, answer in zip(pictures, predict(pictures).argmax(1).tolist(), strict=True):
            if waiting.get(answer):
                found[waiting[answer].pop()] = picture
    return torch.stack([spare[0] if one is None else one for one in found])

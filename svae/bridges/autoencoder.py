"""Networks that show what a representation or a code looks like."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from svae.bridges.frozen import Frozen
from svae.nets import (
    BRIGHT,
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    gain_and_shape,
    gain_network,
    product_logit,
)
from svae.saving import Described

__all__ = [
    "Autoencoder",
    "CodeNetwork",
    "ImageDecoder",
    "Perceptual",
    "Reconstruction",
]

_N_START = 2000  # examples that say how the units of a representation are scaled


class ImageDecoder(Described, nn.Module):
    """From representations of any shape to inputs with values in [0, 1].

    Args:
        shape: Shape of one input: ``(channels, height, width)`` with sides from 8 to 128, or
            ``(features,)``.
        representation_shape: Shape of one representation.
        width: Channels of the last hidden map.
        n_hidden: Width of the hidden layer that reads the representation.
    """

    def __init__(
        self,
        shape: Sequence[int],
        representation_shape: Sequence[int],
        width: int = 32,
        n_hidden: int = 256,
    ) -> None:
        super().__init__()
        n_units = math.prod(representation_shape)
        self.n_event_dims = len(tuple(representation_shape))
        self.mean: Tensor
        self.scale: Tensor
        # Units of a network differ in scale by orders of magnitude; see standardise.
        self.register_buffer("mean", torch.zeros(n_units))
        self.register_buffer("scale", torch.ones(n_units))
        self.net = (
            ConvDecoder(shape, n_units, n_hidden, width)
            if len(shape) == 3
            else MLPDecoder(shape, n_units, (n_hidden, n_hidden))
        )

    @torch.no_grad()
    def standardise(self, representation: Float[Tensor, "n *shape"]) -> None:
        """Takes mean and scale of every unit from training representations."""
        flat = representation.flatten(1)
        self.mean.copy_(flat.mean(0))
        spread = flat.std(0)
        self.scale.copy_(torch.where(spread > 1e-6 * spread.max(), spread, 1.0))

    def logits(self, representation: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch ..."]:
        """The unbounded parameter of each pixel."""
        return self.net((representation.flatten(1) - self.mean) / self.scale)

    def forward(self, representation: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch ..."]:
        return self.logits(representation).sigmoid()


class Redrawing(nn.Module):
    """What is trained to draw its input again, as pixels unless it says otherwise.

    Attributes:
        x_shape: Shape of one input.
        losses_compare: Whether the epoch of the lowest validation loss is the best one; else the
            last is kept.
        learning_rate: Peak of the one-cycle schedule that it is trained well with.
    """

    x_shape: tuple[int, ...]
    losses_compare = True
    learning_rate = 5e-3

    def start(self, train: Any) -> None:
        """Takes what is needed of training examples before the first step; by default nothing."""

    def settle(self, train: Any) -> None:
        """Takes what is needed of training examples before a look at it; by default nothing."""

    def redrawn(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The unbounded parameter of each value."""
        raise NotImplementedError

    def shown(self, logits: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Pixels in [0, 1]."""
        return logits.sigmoid()

    def difference(
        self, logits: Float[Tensor, "batch *event"], x: Float[Tensor, "batch *event"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the pixels, in nats per pixel, and the mean absolute error."""
        loss = functional.binary_cross_entropy_with_logits(logits, x)
        error = (self.shown(logits) - x).abs().mean()
        return loss, {"loss": loss, "absolute_error": error.detach()}

    def loss(self, x: Float[Tensor, "batch *event"]) -> tuple[Tensor, dict[str, Tensor]]:
        """How far what is drawn is from ``x``, and the mean absolute error."""
        return self.difference(self.redrawn(x), x)


class Reconstruction(Redrawing):
    r"""What is trained to show a frozen representation: :math:`D(\Phi(x)) \approx x`.

    Fit it with :func:`svae.fit`, then hand its ``decoder`` to a bridge. The loss is the mean over
    pixels of the Bernoulli cross-entropy, whose best answer is the mean of x given the
    representation: what the layer has lost is shown as a blur, and not invented.

    Args:
        frozen: The network, opened at its layer.
        shape: Shape of one input; that of ``frozen`` if None.
        width: Channels of the decoder's last hidden map.
    """

    def __init__(
        self, frozen: Frozen, shape: Sequence[int] | None = None, width: int = 32
    ) -> None:
        super().__init__()
        if shape is not None:
            frozen.representation(torch.zeros(1, *shape))
        representation_shape = frozen.shape
        assert frozen.x_shape is not None
        self.frozen, self.x_shape = frozen, frozen.x_shape
        self.decoder = ImageDecoder(frozen.x_shape, representation_shape, width)

    @torch.no_grad()
    def start(self, train: Any) -> None:
        """Standardises the decoder's input on some of the training examples."""
        parts = [self.frozen.representation(part) for part in train.floats(_N_START).split(500)]
        self.decoder.standardise(torch.cat(parts))

    def redrawn(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The unbounded parameter of each pixel, decoded from the representation of ``x``."""
        with torch.no_grad():
            representation = self.frozen.representation(x)
        return self.decoder.logits(representation)


class CodeNetwork(Redrawing):
    """What autoencoders of pictures and of rows have in common: a standardised code with noise."""

    noise: float
    encoder: nn.Module
    norm: nn.BatchNorm1d

    def _begin(self, shape: Sequence[int], n_code: int, noise: float) -> None:
        if n_code < 1 or noise < 0:
            raise ValueError(f"n_code must be >= 1 and noise >= 0, got {n_code} and {noise}")
        self.x_shape, self.noise = tuple(shape), noise
        # A new encoder's features vary little: the usual eps would be most of their variance.
        self.norm = nn.BatchNorm1d(n_code, eps=1e-10, affine=False)

    def encode(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch n_code"]:
        """The code of each input, about standardised."""
        return self.norm(self.raw_code(x))

    def decode(self, code: Float[Tensor, "batch n_code"]) -> Float[Tensor, "batch *event"]:
        """The input of each code, in the range of the data."""
        return self.shown(self.logits(code))

    def raw_code(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch n_code"]:
        """The code before it is standardised."""
        raise NotImplementedError

    def logits(self, code: Float[Tensor, "batch n_code"]) -> Float[Tensor, "batch *event"]:
        """The unbounded parameter of each value."""
        raise NotImplementedError

    @torch.no_grad()
    def settle(self, train: Any) -> None:
        """Takes mean and variance of the code from some of the training examples.

        Nothing holds the code's mean in its place while training, so averages over the last steps
        lag behind it, by more than a standard deviation at high learning rates.

        References:
            Rethinking "Batch" in BatchNorm (Wu & Johnson, 2021), https://arxiv.org/abs/2105.07576
        """
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        device, training = self.norm.running_mean.device, self.encoder.training
        parts = train.floats(_N_START).to(device).split(500)
        self.encoder.eval()
        code = torch.cat([self.raw_code(part) for part in parts])
        self.encoder.train(training)
        self.norm.running_mean.copy_(code.mean(0))
        self.norm.running_var.copy_(code.var(0))

    def redrawn(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The unbounded parameter of each value, decoded from the code, noise and all."""
        code = self.encode(x)
        if self.training:
            code = code + self.noise * torch.randn_like(code)
        return self.logits(code)


class Autoencoder(Described, CodeNetwork):
    r"""A small autoencoder with a code that a flow can be fitted to.

    .. math::
        D(E(x) + \sigma \epsilon) \approx x, \quad \epsilon \sim \mathcal{N}(0, I), \qquad
        E(x) = \mathrm{norm}(A s + C m + e(s)), \quad m_c = \max_{ij} x_{cij}, \quad
        s = x / \max(m, 0.05),
        \qquad D(z) = \mathrm{sigmoid}(h(z)) \, \mathrm{sigmoid}(B z + d(z))

    A linear autoencoder and a convolutional one are trained as one: A, B and C are matrices, e and
    d convolutional networks. Gain and shape are coded apart, as in vector quantisation: each
    channel is divided by its brightest value, which is read beside it and, by the perceptron h,
    given back as the most that the channel can reach. The code is normalised over the batch,
    without trained weights, so that noise of one size, added while training, keeps codes of like
    pictures together. Fit it with :func:`svae.fit`; ``Frozen.autoencoder(model)`` explains it.

    Args:
        shape: ``(channels, height, width)``, sides from 8 to 128.
        n_code: Number of code dims.
        width: Channels of the first map.
        noise: :math:`\sigma`, in standard deviations of a code dim.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, shape: Sequence[int], n_code: int = 64, width: int = 32, noise: float = 0.02
    ) -> None:
        super().__init__()
        self._begin(shape, n_code, noise)
        n_values = math.prod(self.x_shape)
        self.encoder = ConvEncoder(shape, width=width)
        self.code = nn.Linear(self.encoder.n_features, n_code)
        self.shape_code = nn.Linear(n_values, n_code, bias=False)
        self.gain_code = nn.Linear(self.x_shape[0], n_code, bias=False)
        self.decoder = ConvDecoder(shape, n_code, n_hidden=512, width=width)
        self.linear_decoder = nn.Linear(n_code, n_values)
        nn.init.zeros_(self.linear_decoder.weight)
        self.brightest = gain_network(n_code, self.x_shape[0])

    def logits(self, code: Float[Tensor, "batch n_code"]) -> Float[Tensor, "batch *event"]:
        """The unbounded parameter of each pixel."""
        shape = self.decoder(code) + self.linear_decoder(code).unflatten(1, self.x_shape)
        return product_logit(shape, self.brightest(code))

    def raw_code(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch n_code"]:
        """The code before it is standardised."""
        gain, shape = gain_and_shape(x)
        linear = self.shape_code(shape.flatten(1)) + self.gain_code(gain)
        return self.code(self.encoder(shape)) + linear

    @torch.no_grad()
    def start(self, train: Any) -> None:
        """Starts the pixels at their mean over some of the training examples."""
        mean = train.floats(_N_START).flatten(1).mean(0) * (1 + math.exp(-BRIGHT))
        self.linear_decoder.bias.copy_(mean.clamp(0.003, 0.997).logit())


class FurtherLoss(Redrawing):
    """A network that draws, and a loss of its drawings beside its own.

    Args:
        network: What is trained.
        weight: Of the further loss.

    Raises:
        ValueError: If the weight is negative.
    """

    def __init__(self, network: Redrawing, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.network, self.weight, self.x_shape = network, weight, network.x_shape
        self.learning_rate = network.learning_rate

    def start(self, train: Any) -> None:
        """What the network itself takes from training examples before the first step."""
        self.network.start(train)

    def settle(self, train: Any) -> None:
        """What the network itself takes from training examples before it is looked at."""
        self.network.settle(train)

    def redrawn(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The unbounded parameter of each value, as the network draws it."""
        return self.network.redrawn(x)

    def shown(self, logits: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The values that the network shows for its parameters."""
        return self.network.shown(logits)


class Perceptual(FurtherLoss):
    r"""Trains a decoder by what a frozen network sees in its pictures, beside their pixels.

    .. math:: L = L_\mathrm{pixels} + w \, \frac{1}{C} \sum_c
        \frac{\overline{(\Phi_c(\hat x) - \Phi_c(x))^2}}{\mathrm{Var}\, \Phi_c}

    A loss in pixels alone averages over what it cannot know, and natural pictures become blurs
    that a classifier no longer reads. Fit it with :func:`svae.fit`; what it trains is ``network``.

    References:
        Perceptual Losses for Real-Time Style Transfer and Super-Resolution (Johnson et al., 2016),
        https://arxiv.org/abs/1603.08155

    Args:
        network: What is trained.
        frozen: A network of the same inputs, opened at the layer that compares.
        weight: :math:`w`.

    Raises:
        ValueError: If the weight is negative.
    """

    def __init__(self, network: Redrawing, frozen: Frozen, weight: float = 0.1) -> None:
        super().__init__(network, weight)
        self.frozen, self.losses_compare = frozen, network.losses_compare
        self.variance: Tensor
        self.register_buffer("variance", torch.ones(1))

    @torch.no_grad()
    def start(self, train: Any) -> None:
        """Takes the variance of each channel from some of the training examples."""
        super().start(train)
        seen = [self.frozen.representation(x) for x in train.floats(_N_START).split(500)]
        channels = torch.cat(seen).transpose(0, 1).flatten(1)
        variance = channels.var(1)
        shape = (-1, *[1] * (seen[0].dim() - 2))
        self.variance = variance.clamp(min=1e-6 * float(variance.max())).view(shape)

    def difference(
        self, logits: Float[Tensor, "batch *event"], x: Float[Tensor, "batch *event"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Both terms; the first in nats per pixel, the second in shares of a variance."""
        values, found = self.network.difference(logits, x)
        with torch.no_grad():
            wanted = self.frozen.representation(x)
        seen = self.frozen.representation(self.shown(logits))
        difference = ((seen - wanted).square() / self.variance).mean()
        loss = values + self.weight * difference
        return loss, {**found, "perceptual": difference.detach(), "loss": loss.detach()}

"""Autoencoders that add networks to a linear one: of natural pictures, and of rows of numbers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from svae.bridges.autoencoder import CodeNetwork
from svae.nets import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from svae.saving import Described

__all__ = ["LinearCodeNetwork", "PrincipalAutoencoder", "TableAutoencoder"]

_N_PRINCIPAL = 10_000  # examples, at most, that principal components are taken from
_N_VALUES = 50_000_000  # numbers in them, at most
_N_SPARE = 64  # axes that are looked for beside those that are kept


class LinearCodeNetwork(CodeNetwork):
    """What adds a network to a linear autoencoder, on either side, and compares squares."""

    linear_code: nn.Linear
    decoder: nn.Module
    linear_decoder: nn.Linear

    def _begin_linear(self, n_code: int) -> None:
        n_values = math.prod(self.x_shape)
        self.linear_code = nn.Linear(n_values, n_code, bias=False)
        self.linear_decoder = nn.Linear(n_code, n_values)

    def logits(self, code: Float[Tensor, "batch n_code"]) -> Float[Tensor, "batch *event"]:
        """The values themselves."""
        return self.decoder(code) + self.linear_decoder(code).unflatten(1, self.x_shape)

    def raw_code(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch n_code"]:
        """The code before it is standardised."""
        return self.encoder(x) + self.linear_code(x.flatten(1))

    def shown(self, logits: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The values as they are."""
        return logits

    def difference(
        self, logits: Float[Tensor, "batch *event"], x: Float[Tensor, "batch *event"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared and mean absolute error."""
        loss = functional.mse_loss(logits, x)
        error = (self.shown(logits) - x).abs().mean()
        return loss, {"loss": loss.detach(), "absolute_error": error.detach()}


class PrincipalAutoencoder(Described, LinearCodeNetwork):
    r"""An autoencoder of natural pictures: their principal components, and what networks add.

    .. math:: E(x) = \mathrm{norm}(A x + e(x)), \quad D(z) = B z + d(z), \quad
        L = \overline{(D(E(x) + \sigma \epsilon) - x)^2} \, / \, \overline{\mathrm{Var}(x)}

    A and B are the principal components of the training pictures, whitened, and stay; the
    convolutional networks e and d start at zero. The variance of natural pictures is spread over
    hundreds of dims, of which a short training from a random start finds few and leaves blurs.
    Where a handful of factors makes the pictures, as in digits, :class:`Autoencoder` is better.
    Fit it with :func:`svae.fit`; ``Frozen.autoencoder(model)`` explains it.

    Args:
        shape: ``(channels, height, width)``, sides from 8 to 128.
        n_code: Number of code dims.
        width: Channels of the first map.
        noise: :math:`\sigma`, in standard deviations of a code dim.

    Raises:
        ValueError: If a number is out of range; on fitting, if there are no more training
            examples than code dims, or fewer values in each.
    """

    learning_rate = 1e-3

    def __init__(
        self, shape: Sequence[int], n_code: int = 512, width: int = 32, noise: float = 0.1
    ) -> None:
        super().__init__()
        self._begin(shape, n_code, noise)
        convolutions = ConvEncoder(shape, width=width)
        last = nn.Linear(convolutions.n_features, n_code)
        self.encoder = nn.Sequential(convolutions, last)
        self.decoder = ConvDecoder(shape, n_code, n_hidden=512, width=width)
        self._begin_linear(n_code)
        # Steps that suit the networks would undo the components in a few batches.
        self.linear_code.requires_grad_(False)
        self.linear_decoder.requires_grad_(False)
        drawing = self.decoder.convolutions[-1]
        assert isinstance(drawing, nn.ConvTranspose2d)
        for layer in (last, drawing):
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.variance: Tensor
        self.register_buffer("variance", torch.ones(()))

    def shown(self, logits: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Pixels in [0, 1], cut off."""
        return logits.clamp(0, 1)

    def difference(
        self, logits: Float[Tensor, "batch *event"], x: Float[Tensor, "batch *event"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Share of the pixels' variance that is missed, and the mean absolute error."""
        loss, found = super().difference(logits, x)
        missed = loss / self.variance
        return missed, {**found, "loss": missed.detach()}

    @torch.no_grad()
    def start(self, train: Any) -> None:
        """Takes principal components of some of the training examples."""
        n_code, n_values = self.linear_code.out_features, math.prod(self.x_shape)
        x = train.floats(max(min(_N_PRINCIPAL, _N_VALUES // n_values), n_code + 1)).flatten(1)
        if n_code >= len(x) or n_code > n_values:
            raise ValueError(
                f"{n_code} principal components need more training examples than that, and at "
                f"least as many values in each, got {len(x)} of {n_values} values. Take a "
                "smaller n_code."
            )
        mean = x.mean(0)
        self.variance.copy_(x.var(0).mean())
        # More axes than are kept: the last ones of a random projection are not the leading ones.
        n_axes = min(n_code + _N_SPARE, *x.shape)
        _, spread, axes = torch.svd_lowrank(x - mean, q=n_axes, niter=4)
        spread, axes = spread[:n_code] / math.sqrt(len(x)), axes[:, :n_code]
        spread = spread.clamp(min=1e-4 * float(spread[0]))
        self.linear_code.weight.copy_((axes / spread).T)
        # The best linear answer to a code with noise shrinks it.
        self.linear_decoder.weight.copy_(axes * spread / (1 + self.noise**2))
        self.linear_decoder.bias.copy_(mean)


class TableAutoencoder(Described, LinearCodeNetwork):
    r"""An autoencoder of rows of numbers, a linear one and a perceptron trained as one.

    .. math:: E(x) = \mathrm{norm}(A x + e(x)), \quad D(z) = B z + d(z), \quad
        L = \overline{(D(E(x) + \sigma \epsilon) - x)^2}

    Args:
        shape: ``(features,)``, of about unit variance.
        n_code: Number of code dims.
        width: Of the hidden layers.
        noise: :math:`\sigma`, in standard deviations of a code dim.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, shape: Sequence[int], n_code: int = 64, width: int = 256, noise: float = 0.02
    ) -> None:
        super().__init__()
        self._begin(shape, n_code, noise)
        self.encoder = MLPEncoder(shape, n_code, (width, width))
        self.decoder = MLPDecoder(shape, n_code, (width, width))
        self._begin_linear(n_code)

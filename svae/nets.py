"""Plain encoders and decoders: tensors in, tensors out, no probability.

Every network takes any number of leading batch dims, so that one decoder call serves several
posterior samples of one batch.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from svae.saving import Described

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "MapEncoder",
    "full_precision",
]

SMALLEST, LARGEST = 8, 128
BRIGHT = 2.0  # logit of the gain that a new network gives
_DIMMEST = 0.05  # least gain that a channel is divided by
_TINY = 1e-6  # distance of a pixel to 1 that its logit is still told by


class MLP(nn.Sequential):
    """A multilayer perceptron with SiLU between its linear layers.

    Args:
        sizes: Widths from input to output, at least two.

    Raises:
        ValueError: If there are fewer than two widths or one is below 1.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"an MLP needs two or more widths of at least 1, got {list(sizes)}")
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            layers += [nn.SiLU()] if i else []
            layers.append(nn.Linear(n_in, n_out))
        super().__init__(*layers)


class MLPEncoder(Described, nn.Module):
    """Flattens an input of any shape and maps it to features.

    Args:
        shape: Shape of one input, for example ``(1, 28, 28)`` or ``(30,)``.
        n_features: Number of output features.
        hidden: Widths of the hidden layers.
    """

    def __init__(
        self, shape: Sequence[int], n_features: int = 256, hidden: Sequence[int] = (512,)
    ) -> None:
        super().__init__()
        self.shape, self.n_features = tuple(shape), n_features
        self.net = MLP([math.prod(self.shape), *hidden, n_features])

    def forward(self, x: Float[Tensor, "*batch_and_event"]) -> Float[Tensor, "*batch features"]:
        return self.net(x.flatten(-len(self.shape)))


class MLPDecoder(Described, nn.Module):
    """Maps a latent to an input of any shape: the unbounded parameter of a likelihood.

    Args:
        shape: Shape of one output.
        n_latent: Number of latent features.
        hidden: Widths of the hidden layers.
    """

    def __init__(
        self, shape: Sequence[int], n_latent: int, hidden: Sequence[int] = (256, 512)
    ) -> None:
        super().__init__()
        self.shape, self.n_latent = tuple(shape), n_latent
        self.net = MLP([n_latent, *hidden, math.prod(self.shape)])

    def forward(self, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch_and_event"]:
        return self.net(z).unflatten(-1, self.shape)


def image_sizes(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Heights and widths from the image down to the smallest map, each half the last, rounded up.

    Raises:
        ValueError: If ``shape`` is no ``(channels, height, width)`` with sides from 8 to 128.
    """
    if len(shape) != 3 or shape[0] < 1 or not all(SMALLEST <= s <= LARGEST for s in shape[1:]):
        raise ValueError(
            f"convolutional networks take images of shape (channels, height, width) with sides "
            f"from {SMALLEST} to {LARGEST}, got {tuple(shape)}. Use MLPEncoder and MLPDecoder for "
            "vectors, and resize larger images."
        )
    sizes = [(shape[1], shape[2])]
    while max(sizes[-1]) > 4:
        height, width = sizes[-1]
        sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
    return sizes


class ConvEncoder(Described, nn.Module):
    """Convolutions of stride 2 down to a 4×4 map, then one linear layer.

    Every halving is a strided and, but for the last, a plain 3×3 convolution, each with batch
    normalisation and SiLU; the channels double up to eight times ``width``.

    With ``gain``, the convolutions see the shape alone, whatever the colour: each channel is
    divided by its brightest value (:func:`gain_and_shape`), which a matrix adds to the features.

    Args:
        shape: ``(channels, height, width)``, sides from 8 to 128, not necessarily equal or even.
        n_features: Number of output features.
        width: Channels of the first map.
        dropout: Share of features dropped before the linear layer while training.
        gain: Whether gain and shape are read apart.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_features: int = 256,
        width: int = 32,
        dropout: float = 0.0,
        gain: bool = False,
    ) -> None:
        super().__init__()
        sizes = image_sizes(shape)
        self.shape, self.n_features = tuple(shape), n_features
        layers: list[nn.Module] = []
        n_in = self.shape[0]
        for i in range(len(sizes) - 1):
            n_out = width * min(2**i, 8)
            layers += _conv(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False))
            if i < len(sizes) - 2 or i == 0:
                layers += _conv(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False))
            n_in = n_out
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(n_in * math.prod(sizes[-1]), n_features),
            nn.SiLU(),
        )
        self.gain = nn.Linear(self.shape[0], n_features) if gain else None
        self.to(memory_format=torch.channels_last)  # faster convolutions, the same numbers

    def forward(
        self, x: Float[Tensor, "*batch channels height width"]
    ) -> Float[Tensor, "*batch features"]:
        flat = x.reshape(-1, *x.shape[-3:])
        if self.gain is None:
            features = self.linear(self.convolutions(flat))
        else:
            gain, flat = gain_and_shape(flat)
            features = self.linear(self.convolutions(flat)) + self.gain(gain)
        return features.reshape(*x.shape[:-3], self.n_features)


class ConvDecoder(Described, nn.Module):
    """The mirror image of :class:`ConvEncoder`: two linear layers, then transposed convolutions.

    With ``gain``, a perceptron gives the most that each channel can reach, and the output is the
    logit of the product (:func:`product_logit`), for likelihoods whose mean is its sigmoid.

    Args:
        shape: ``(channels, height, width)`` of the output, sides from 8 to 128.
        n_latent: Number of latent features.
        n_hidden: Width of the hidden linear layer.
        width: Channels of the last hidden map.
        gain: Whether gain and shape are drawn apart.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_latent: int,
        n_hidden: int = 256,
        width: int = 32,
        gain: bool = False,
    ) -> None:
        super().__init__()
        sizes = image_sizes(shape)[::-1]
        self.shape, self.n_latent = tuple(shape), n_latent
        n_steps = len(sizes) - 1
        n_in = width * min(2 ** (n_steps - 1), 8)
        self.linear = nn.Sequential(
            MLP([n_latent, n_hidden, n_in * math.prod(sizes[0])]),
            nn.SiLU(),
            nn.Unflatten(-1, (n_in, *sizes[0])),
        )
        layers: list[nn.Module] = []
        for i in range(n_steps):
            last = i == n_steps - 1
            n_out = self.shape[0] if last else width * min(2 ** (n_steps - 2 - i), 8)
            # Sides were rounded up on the way down, so an odd side takes no output padding.
            padding = (1 - sizes[i + 1][0] % 2, 1 - sizes[i + 1][1] % 2)
            up = nn.ConvTranspose2d(
                n_in, n_out, 3, stride=2, padding=1, output_padding=padding, bias=last
            )
            layers += [up] if last else _conv(up)
            if i == n_steps - 2:
                layers += _conv(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False))
            n_in = n_out
        self.convolutions = nn.Sequential(*layers)
        self.gain = gain_network(n_latent, self.shape[0]) if gain else None
        self.to(memory_format=torch.channels_last)

    def forward(
        self, z: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch channels height width"]:
        flat = z.reshape(-1, z.shape[-1])
        output = self.convolutions(self.linear(flat))
        if self.gain is not None:
            output = product_logit(output, self.gain(flat))
        return output.reshape(*z.shape[:-1], *self.shape)


def gain_and_shape(
    x: Float[Tensor, "batch channels height width"],
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch channels height width"]]:
    """The brightest value of each channel, and the picture divided by it.

    Nearly black channels are divided by .05 instead.
    """
    gain = x.amax((-2, -1))
    return gain, x / gain.clamp(min=_DIMMEST)[..., None, None]


def product_logit(
    shape: Float[Tensor, "batch channels height width"], gain: Float[Tensor, "batch channels"]
) -> Float[Tensor, "batch channels height width"]:
    r"""The logit of :math:`\sigma(a)\,\sigma(b)`, where a is the shape's logit and b the gain's.

    Sums of layers only approach the product of a shape and a colour.
    """
    gain = functional.logsigmoid(full_precision(gain))[..., None, None]
    log_mean = functional.logsigmoid(full_precision(shape)) + gain
    return log_mean - torch.log(-torch.expm1(log_mean).clamp(max=-_TINY))


def gain_network(n_latent: int, channels: int) -> MLP:
    """Logits of the most that each channel can reach; at first the same for every latent."""
    network = MLP([n_latent, 256, channels])
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, BRIGHT)
    return network


class MapEncoder(Described, nn.Module):
    """Convolutions of stride 2 down to a map of at most 4×4, then one linear layer.

    For feature maps of any size, such as those of a frozen network. The first convolution keeps a
    map that is small already; the channels double up to four times ``width``. Each convolution is
    normalised over the channels and places of one example, so no example acts on another, a batch
    of one is like any other, and training and evaluation give the same.

    References:
        Group Normalization (Wu & He, 2018), https://arxiv.org/abs/1803.08494, with one group

    Args:
        shape: ``(channels, height, width)``, sides from 1, not necessarily equal or even.
        n_features: Number of output features.
        width: Channels of the first convolution, at least 2.

    Raises:
        ValueError: If a size is out of range, or a map has another shape.

    Example:
        >>> MapEncoder(shape=(64, 8, 8), n_features=16)(torch.randn(5, 64, 8, 8)).shape
        torch.Size([5, 16])
    """

    def __init__(self, shape: Sequence[int], n_features: int = 128, width: int = 64) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1 or n_features < 1 or width < 2:
            raise ValueError(
                "a map encoder needs a shape (channels, height, width) of sizes of at least 1, "
                f"1 feature and width 2, got {tuple(shape)}, {n_features} and {width}. Use "
                "MLPEncoder for vectors."
            )
        self.shape, self.n_features = tuple(shape), n_features
        n_in, height, wide = self.shape
        layers: list[nn.Module] = []
        while not layers or max(height, wide) > 4:
            stride = 2 if max(height, wide) > 4 else 1
            n_out = width * min(2 ** (len(layers) // 3), 4)
            # With a bias, so that normalising does not hide how strong the map is.
            conv = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1)
            layers += [conv, nn.GroupNorm(1, n_out), nn.SiLU()]
            height, wide = math.ceil(height / stride), math.ceil(wide / stride)
            n_in = n_out
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Linear(n_in * height * wide, n_features)

    def forward(
        self, x: Float[Tensor, "*batch channels height width"]
    ) -> Float[Tensor, "*batch features"]:
        if x.shape[-3:] != self.shape:
            raise ValueError(
                f"the encoder takes maps of shape {self.shape}, got {tuple(x.shape[-3:])}"
            )
        flat = x.reshape(-1, *self.shape)
        found = self.linear(self.convolutions(flat).flatten(1))
        return found.reshape(*x.shape[:-3], self.n_features)


def _conv(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.SiLU()]


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision, in which log-densities lose their digits, becomes single; double stays."""
    return x if x.dtype == torch.float64 else x.float()

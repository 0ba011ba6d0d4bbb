r"""Digits in colours that have nothing to do with the digit: what a colour-blind model ignores.

.. math:: x_{k i j} = g_{i j} \, c_k, \quad g \in [0, 1]^{H \times W}, \quad c \in [0, 1]^3

The background stays black. The colour is drawn for each picture, independently of everything else,
so the pictures that a model of the de-coloured picture cannot tell apart are exactly "the same
digit in any colour", with a colour distribution that is known.
"""

from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from svae.data.arrays import ArraySet
from svae.data.batch import as_floats
from svae.data.module import ArrayData

__all__ = [
    "COLOUR_NAMES",
    "ColouredDigits",
    "Colours",
    "colour_labels",
    "decoloured",
    "draw_colours",
    "paint",
    "read_colour",
]

Colours = Literal["uniform", "mixture"]

# A label's binary digits are red, green, blue: 4 red + 2 green + blue.
COLOUR_NAMES = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")

_LOWEST = 0.2  # of a channel, under `uniform`
# Cumulative weights, means and standard deviations of one channel, under `mixture`.
_EDGES, _LOCS, _SCALES = (0.60, 0.95), (0.70, 0.50, 0.10), (0.08, 0.015, 0.02)
# Half way between the corners of the cube in which the colours lie: [.2, 1] or [0, 1] a channel.
_HALF: dict[str, float] = {"uniform": (_LOWEST + 1) / 2, "mixture": 0.5}

_CHUNK = 4096  # pictures painted at a time: floats of a whole set would take a gigabyte


class ColouredDigits(ArrayData):
    """A set of grey pictures, each in a colour of its own, on black.

    Colours are a function of ``(seed, split, index)``: a picture has the same one whenever the set
    is made, and a shorter training set keeps those of its examples. ``factors`` hold them exactly,
    red, green and blue in [0, 1]; pixels of a set of bytes are rounded to 1/255. Split, labels,
    ``augment`` and ``mixture`` are those of ``base``.

    Args:
        base: Grey pictures, such as :class:`svae.data.MNIST` or :class:`svae.data.Digits`.
        colours: How a colour is drawn, see :func:`draw_colours`.
        seed: Colours, and orders of the training batches.
        batch_size: Examples per batch and process; by default that of ``base``.

    Raises:
        TypeError: If ``base`` is no :class:`svae.data.ArrayData`.
        ValueError: If its examples are no grey pictures, its pixels are drawn as 0 or 1, or
            ``colours`` is not known.

    Example:
        >>> data = svae.data.ColouredDigits(svae.data.Digits(), colours="mixture")
        >>> data.x_shape, data.train.factors.shape, data.name
        ((3, 8, 8), torch.Size([1200, 3]), 'coloured-digits')
    """

    factor_names = ("red", "green", "blue")

    def __init__(
        self,
        base: ArrayData,
        colours: Colours = "uniform",
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        if not isinstance(base, ArrayData):
            raise TypeError(
                f"base is a {type(base).__name__}, expected a set of grey pictures such as "
                "svae.data.MNIST(). Make one of arrays with svae.data.as_data((x, y))."
            )
        if len(base.x_shape) != 3 or base.x_shape[0] != 1:
            raise ValueError(
                f"base has examples of shape {base.x_shape}, expected grey pictures "
                "(1, height, width). Average the channels of coloured ones: x.mean(1, True)."
            )
        if base.binarise:
            raise ValueError(
                "base draws its pixels as 0 or 1 for every batch, which a coloured picture cannot "
                "be. Make it with binarise=False."
            )
        _known(colours)
        self.colours: Colours = colours
        parts = (base.train, base.validation, base.test)
        super().__init__(
            *(_coloured(part, colours, seed, split) for split, part in enumerate(parts)),
            class_names=base.class_names,
            name=f"coloured-{base.name}",
            batch_size=base.batch_size if batch_size is None else batch_size,
            seed=seed,
            augment=base.augment,
            mixture=base.mixture,
        )

    def colour_labels(self, colour: Float[Tensor, "batch 3"]) -> Int64[Tensor, " batch"]:
        """The colour as a label 0..7, see :func:`colour_labels`."""
        return colour_labels(colour, self.colours)


def draw_colours(
    colours: Colours, n: int, generator: torch.Generator | None = None
) -> Float[Tensor, "n 3"]:
    r"""Colours as the set has them: red, green and blue, independent of each other.

    - ``uniform``: U(.2, 1) for each channel;
    - ``mixture``: .60 N(.70, .08) + .35 N(.50, .015) + .05 N(.10, .02) for each channel, scales
      being standard deviations, clipped to [0, 1].

    The first rows do not depend on ``n``.

    Args:
        colours: Which distribution.
        n: How many.
        generator: Source of randomness; by default torch's own.

    Raises:
        ValueError: If ``colours`` is not known.

    Example:
        >>> low, high = draw_colours("uniform", 1000).aminmax()
        >>> 0.2 <= low < 0.21 and 0.99 < high <= 1
        tensor(True)
    """
    _known(colours)
    if colours == "uniform":
        return _LOWEST + (1 - _LOWEST) * torch.rand(n, 3, generator=generator)
    # Normals by their inverse distribution function: torch's own depend on how many are drawn.
    u = torch.rand(n, 3, 2, generator=generator, dtype=torch.float64)
    component = torch.bucketize(u[..., 0].contiguous(), u.new_tensor(_EDGES))
    normal = torch.special.ndtri(u[..., 1].clamp_min(2**-53))
    channels = u.new_tensor(_LOCS)[component] + u.new_tensor(_SCALES)[component] * normal
    return channels.clamp(0, 1).float()


def colour_labels(
    colour: Float[Tensor, "batch 3"], colours: Colours = "uniform"
) -> Int64[Tensor, " batch"]:
    """The nearest corner of the colour cube, 0..7, named in :data:`COLOUR_NAMES`.

    The cube is the one in which the colours lie: [.2, 1] for each channel under ``uniform``, so a
    channel counts as bright above .6; [0, 1] under ``mixture``, bright above .5. The middle
    component of the mixture lies on that boundary.

    Args:
        colour: Red, green, blue.
        colours: Which distribution they are of.

    Example:
        >>> colour_labels(torch.tensor([[0.9, 0.3, 0.7], [0.3, 0.59, 0.21]]))
        tensor([5, 0])
    """
    _known(colours)
    bright = (colour > _HALF[colours]).long()
    return bright @ torch.tensor([4, 2, 1], device=colour.device)


def paint(
    grey: Float[Tensor, "batch 1 height width"], colour: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch 3 height width"]:
    """Grey pictures on black in the colours given."""
    return grey * colour[:, :, None, None]


def read_colour(x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3"]:
    r"""The colour of each picture, as seen.

    .. math:: \hat c_k = \max_{ij} s_{ij} \, \frac{\sum x_{kij} s_{ij}}{\sum s_{ij}^2}, \quad
              s_{ij} = \sum_k x_{kij}

    The hue is fitted by least squares to all pixels, bright ones counting most, so noise averages
    out; the brightness is that of the brightest pixel. So the answer is the true colour times the
    brightest grey of the digit, which is 254/255 or more in MNIST, and
    ``paint(decoloured(x), read_colour(x))`` is ``x`` where ``x`` has one colour. Black pictures
    are black.

    Args:
        x: Pictures on black, in [0, 1].

    Example:
        >>> stroke = torch.tensor([[[[0.0, 0.5, 1.0]]]])
        >>> read_colour(paint(stroke, torch.tensor([[0.2, 0.4, 0.8]])))
        tensor([[0.2000, 0.4000, 0.8000]])
    """
    total = x.sum(1).flatten(1)
    hue = torch.einsum("bkp,bp->bk", x.flatten(2), total)
    norm = total.square().sum(1).clamp_min(torch.finfo(x.dtype).tiny)
    return hue * (total.amax(1) / norm)[:, None]


def decoloured(
    x: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 1 height width"]:
    r"""The grey digit under the colour: the sum of the channels over its brightest pixel.

    .. math:: g_{ij} = \frac{s_{ij}}{\max_{ij} s_{ij}}, \quad s_{ij} = \sum_k x_{kij}

    Multiplying ``x`` by any colour changes nothing, so a model of ``decoloured(x)`` ignores colour
    and brightness exactly, and nothing else. Rounded pixels of a colour c leave up to
    :math:`3 / (255 \sum_k c_k)`. The brightest pixel of the result is 1. Black pictures stay
    black.

    Args:
        x: Pictures on black, in [0, 1].

    Example:
        >>> grey, red = torch.rand(1, 1, 8, 8), torch.tensor([[0.9, 0, 0]])
        >>> white = torch.ones(1, 3)
        >>> torch.allclose(decoloured(paint(grey, red)), decoloured(paint(grey, white)))
        True
    """
    total = x.sum(1, keepdim=True)
    return total / total.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def _known(colours: Any) -> None:
    if colours not in get_args(Colours):
        raise ValueError(f"colours is {colours!r}, expected 'uniform' or 'mixture'.")


def _coloured(part: ArraySet, colours: Colours, seed: int, split: int) -> ArraySet:
    # Hashed, so that neither the colours of other seeds and splits nor the orders of batches,
    # which are drawn from small seeds as well, have anything in common with these.
    state = np.random.SeedSequence([seed % 2**63, split]).generate_state(1)
    generator = torch.Generator().manual_seed(int(state[0]))
    colour = draw_colours(colours, len(part), generator)
    x = torch.empty(len(part), 3, *part.shape[1:], dtype=part.x.dtype)
    chunks = (whole.split(_CHUNK) for whole in (part.x, colour, x))
    for grey, c, out in zip(*chunks, strict=True):
        painted = paint(as_floats(grey), c)
        out.copy_((painted * 255).round() if x.dtype == torch.uint8 else painted)
    return ArraySet(x, part.y, colour)

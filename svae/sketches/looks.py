"""What a picture looks like in numbers: where, how large, how turned, how bright, which colour.

Places and sizes are moments of the brightness over the whole picture: of one bright object on
black, its own. Angles have no beginning and are given as points of the plane, so that their
variance means something.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from svae.sketches.measures import blur, check_images, slant, thickness

__all__ = [
    "Measure",
    "area",
    "brightness",
    "centre",
    "contrast",
    "hue",
    "measures_for",
    "orientation",
    "saturation",
    "size",
]

# Pictures (batch, channels, height, width) in [0, 1] to numbers (batch, d).
Measure: TypeAlias = Callable[[Tensor], Tensor]
_TINY = 1e-8


def brightness(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """The brightest pixel's mean over channels; of one bright object, the object's brightness."""
    check_images(x)
    return x.mean(1).amax((1, 2))


def contrast(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Standard deviation over the pixels of the mean over channels."""
    check_images(x)
    return x.mean(1).flatten(1).std(1)


def area(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Pixels at least half as bright as the brightest."""
    check_images(x)
    grey = x.sum(1).flatten(1)
    return (grey >= grey.amax(1, keepdim=True) / 2).float().sum(1).to(x.dtype)


def centre(
    x: Float[Tensor, "batch channels height width"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Column and row of the centre of mass, in pixels, 0 at the first; of black, the middle."""
    check_images(x)
    columns, rows, _ = _moments(x)
    return columns, rows


def size(
    x: Float[Tensor, "batch channels height width"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""Width and height in pixels: :math:`\sqrt{12}` standard deviations of the mass.

    A full rectangle has its own.
    """
    check_images(x)
    _, _, (across, upright, _) = _moments(x)
    return (12 * across).sqrt(), (12 * upright).sqrt()


def orientation(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 2"]:
    r"""The principal axis as a point :math:`e\,(\cos 2\theta, \sin 2\theta)`.

    :math:`\theta` is its angle, counter-clockwise from the horizontal; e, the eccentricity, is the
    difference of the two principal variances over their sum: a disc has no axis and lies at 0.
    """
    check_images(x)
    _, _, (across, upright, both) = _moments(x)
    total = (across + upright).clamp_min(_TINY)
    # Rows run downwards.
    return torch.stack([(across - upright) / total, -2 * both / total], 1)


def hue(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 2"]:
    """The mean colour's place on the colour circle, with its strength; grey lies at 0."""
    red, green, blue = _mean_colour(x).unbind(1)
    across, up = red - (green + blue) / 2, 3**0.5 / 2 * (green - blue)
    return torch.stack([across, up], 1)


def saturation(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Range of the mean colour's channels over the largest: 0 for grey, 1 for a pure colour."""
    colour = _mean_colour(x)
    most = colour.amax(1)
    return (most - colour.amin(1)) / most.clamp_min(_TINY)


def measures_for(shape: Sequence[int]) -> dict[str, Measure]:
    """What can be measured of inputs of a shape, by name.

    Args:
        shape: Of one input. Of pictures ``(channels, height, width)`` all of this module and of
            :mod:`svae.sketches.measures`, those of colour for three channels; of rows of numbers
            each number.
    """
    if len(shape) != 3:
        n = int(torch.Size(shape).numel())
        return {f"feature {i}": lambda x, i=i: x.flatten(1)[:, i : i + 1] for i in range(n)}
    found: dict[str, Measure] = {
        "slant": lambda x: slant(x)[:, None],
        "thickness": lambda x: thickness(x)[:, None],
        "width": lambda x: size(x)[0][:, None],
        "height": lambda x: size(x)[1][:, None],
        "area": lambda x: area(x)[:, None],
        "position across": lambda x: centre(x)[0][:, None],
        "position upright": lambda x: centre(x)[1][:, None],
        "rotation": orientation,
        "brightness": lambda x: brightness(x)[:, None],
        "contrast": lambda x: contrast(x)[:, None],
        "blur": lambda x: blur(x)[:, None],
    }
    if shape[0] == 3:
        found |= {"hue": hue, "saturation": lambda x: saturation(x)[:, None]}
    return found


def _mean_colour(x: Tensor) -> Tensor:
    """The mean over pixels, each weighted by its brightness, so that black does not count."""
    check_images(x)
    if x.shape[1] != 3:
        raise ValueError(f"images have {x.shape[1]} channels, expected red, green and blue")
    weight = x.sum(1, keepdim=True)
    return (weight * x).sum((2, 3)) / weight.sum((2, 3)).clamp_min(_TINY)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Column and row of the centre of mass, and the second moments about it."""
    weight = x.sum(1)
    total = weight.sum((1, 2), keepdim=True)
    black = total <= _TINY
    weight = torch.where(black, torch.ones_like(weight), weight)
    weight = weight / weight.sum((1, 2), keepdim=True)
    rows = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(x.shape[3], dtype=x.dtype, device=x.device)
    row = (weight * rows).sum((1, 2), keepdim=True)
    column = (weight * columns).sum((1, 2), keepdim=True)
    down, right = rows - row, columns - column
    # A pixel is not a point: its own mass spreads over a twelfth.
    moments = (
        (weight * right.square()).sum((1, 2)) + 1 / 12,
        (weight * down.square()).sum((1, 2)) + 1 / 12,
        (weight * right * down).sum((1, 2)),
    )
    return column[:, 0, 0], row[:, 0, 0], moments

"""Operators on the tones of a picture: brightness, contrast, hue and saturation."""

import math
from dataclasses import dataclass

from torch import Tensor

from svae.sketches.operators import Operator

__all__ = ["Brightness", "Contrast", "Hue", "Saturation"]


@dataclass(frozen=True)
class Brightness(Operator):
    """Multiplies every value.

    Args:
        value: Factor, 1 changing nothing.

    Raises:
        ValueError: If ``value`` is negative.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_factor("brightness", self.value)

    def _apply(self, x: Tensor) -> Tensor:
        return x * self.value


@dataclass(frozen=True)
class Contrast(Operator):
    """Multiplies what is brighter or darker than the mean of each picture.

    Args:
        value: Factor, 1 changing nothing.

    Raises:
        ValueError: If ``value`` is negative.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_factor("contrast", self.value)

    def _apply(self, x: Tensor) -> Tensor:
        middle = x.mean((1, 2, 3), keepdim=True)
        return middle + self.value * (x - middle)


@dataclass(frozen=True)
class Hue(Operator):
    """Turns the colours of a picture on the colour circle.

    Args:
        value: Degrees in [-180, 180], 0 changing nothing; 120 makes red green.

    Raises:
        ValueError: If ``value`` is out of range, or a picture has not three channels.

    Example:
        >>> import torch
        >>> red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
        >>> Hue(120.0)(red).flatten().round()
        tensor([0., 1., 0.])
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        if not -180 <= self.value <= 180:
            raise ValueError(f"hue is turned by {self.value}, expected -180 to 180 degrees.")

    def _apply(self, x: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import adjust_hue

        return adjust_hue(_coloured(x), self.value / 360)


@dataclass(frozen=True)
class Saturation(Operator):
    """Makes colours paler or stronger, the brightest channel of each pixel staying as it is.

    Args:
        value: Factor on what the other channels lack; 0 for grey, 1 changing nothing.

    Raises:
        ValueError: If ``value`` is negative, or a picture has not three channels.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_factor("saturation", self.value)

    def _apply(self, x: Tensor) -> Tensor:
        most = _coloured(x).amax(1, keepdim=True)
        return most - self.value * (most - x)


def _coloured(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        raise ValueError(
            f"images have {x.shape[1]} channels, expected red, green and blue. Grey ones have no "
            "hue and no saturation."
        )
    return x


def _check_factor(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}, expected a factor of 0 or more. Usual are .5 to 2.")

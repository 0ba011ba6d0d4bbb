"""Operators that move a picture in its frame: turned, shifted, larger, wider."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from svae.sketches.looks import centre
from svae.sketches.operators import Operator

__all__ = ["Rotation", "Shift", "Size"]


@dataclass(frozen=True)
class Rotation(Operator):
    """Turns about the centre of mass.

    Args:
        value: Degrees, counter-clockwise.

    Raises:
        ValueError: If ``value`` is not finite.

    Example:
        >>> bar = torch.zeros(1, 1, 9, 9)
        >>> bar[..., 2:7, 4] = 1
        >>> Rotation(90.0)(bar)[0, 0, 4].round()
        tensor([0., 0., 1., 1., 1., 1., 1., 0., 0.])
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"rotation is {self.value}, expected degrees. Usual are -30 to 30.")

    def _apply(self, x: Tensor) -> Tensor:
        angle = math.radians(self.value)
        cosine, sine = math.cos(angle), math.sin(angle)
        return _moved(x, ((cosine, -sine), (sine, cosine)))


@dataclass(frozen=True)
class Shift(Operator):
    """Shifts; what leaves the frame is lost, what enters is black.

    Args:
        right: Pixels, negative to the left.
        down: Pixels, negative upwards.

    Raises:
        ValueError: If one is not finite.

    Example:
        >>> dot = torch.zeros(1, 1, 4, 4)
        >>> dot[..., 1, 1] = 1
        >>> Shift(right=1.0, down=2.0)(dot)[0, 0].argmax()
        tensor(14)
    """

    right: float = 0.0
    down: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.right) and math.isfinite(self.down)):
            raise ValueError(f"shift is {self.right}, {self.down}, expected pixels.")

    def _apply(self, x: Tensor) -> Tensor:
        return _moved(x, ((1.0, 0.0), (0.0, 1.0)), (self.right, self.down))


@dataclass(frozen=True)
class Size(Operator):
    """Stretches about the centre of mass.

    Args:
        width: Factor across, 1 changing nothing.
        height: Factor upright.

    Raises:
        ValueError: If one is not positive.

    Example:
        >>> bar = torch.zeros(1, 1, 28, 28)
        >>> bar[..., 10:18, 10:18] = 1
        >>> Size(width=2.0, height=0.5)(bar).sum().round()
        tensor(64.)
    """

    width: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.width < math.inf and 0 < self.height < math.inf):
            raise ValueError(
                f"size is {self.width} by {self.height}, expected factors of more than 0. Usual "
                "are .7 to 1.4."
            )

    def _apply(self, x: Tensor) -> Tensor:
        return _moved(x, ((1 / self.width, 0.0), (0.0, 1 / self.height)))


def _moved(
    x: Float[Tensor, "batch channels height width"],
    source: tuple[tuple[float, float], tuple[float, float]],
    shift: tuple[float, float] = (0.0, 0.0),
) -> Float[Tensor, "batch channels height width"]:
    """Each pixel from where ``source`` points, from the centre of mass, in pixels."""
    height, width = x.shape[-2:]
    middle = torch.stack(centre(x), 1)  # column and row
    half = x.new_tensor([width / 2, height / 2])
    matrix = x.new_tensor(source)
    # Pixels from the middle of the frame; affine_grid has 1 at its edges.
    middle = middle + 0.5 - half
    offset = middle - (middle + x.new_tensor(shift)) @ matrix.T
    scaled = matrix * half / half[:, None]
    theta = torch.cat([scaled.expand(len(x), 2, 2), (offset / half)[:, :, None]], 2)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bicubic", align_corners=False)

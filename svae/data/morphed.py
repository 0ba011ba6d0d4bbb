r"""Digits that are turned, moved, dimmed and coloured: every nuisance of every picture is known.

.. math:: x_{k i j} = b \, c_k \, g\big(R_{-\theta} ((i, j) - s)\big)

g is a grey picture, :math:`\theta` an angle, s a shift, b a brightness and c a colour whose
brightest channel is 1. All are drawn for each picture, independently of each other and of the
digit.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from svae.data.arrays import ArraySet
from svae.data.batch import as_floats
from svae.data.module import ArrayData

__all__ = ["FACTORS", "MorphedDigits", "morph"]

FACTORS = ("rotation", "shift_x", "shift_y", "brightness", "red", "green", "blue")
_ANGLE, _SHIFT, _DARKEST, _PALEST = 40.0, 0.12, 0.4, 0.2
_CHUNK = 4096  # pictures rendered at a time


class MorphedDigits(ArrayData):
    """A set of grey pictures, each with a rotation, shift, brightness and colour of its own.

    The factors, in the order of :data:`FACTORS`: degrees in ±40, counter-clockwise; shifts to the
    right and down in pixels, up to an eighth of the side; brightness in [.4, 1]; the three
    channels of the colour, in [.2, 1] and the largest 1. They are a function of
    ``(seed, split, index)``.

    Args:
        base: Grey pictures ``(1, height, width)`` on black.
        seed: Of the factors.
        margin: Black pixels added on every side, so that nothing is moved out of the picture; None
            for as many as it takes, and sides that are multiples of eight.
        copies: How often each training picture comes, each time with factors of its own.

    Raises:
        ValueError: If the pictures have more than one channel, or ``copies`` is less than 1.

    Example:
        >>> data = MorphedDigits(svae.data.Digits())
        >>> data.x_shape, data.test.factors.shape[1]
        ((3, 16, 16), 7)
    """

    factor_names = FACTORS

    def __init__(
        self, base: ArrayData, seed: int = 0, margin: int | None = None, copies: int = 1
    ) -> None:
        if len(base.x_shape) != 3 or base.x_shape[0] != 1:
            raise ValueError(
                f"the pictures have the shape {tuple(base.x_shape)}, expected grey ones "
                "(1, height, width)"
            )
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        height = base.x_shape[1]
        # To a multiple of eight, which halves without rest.
        margin = (8 * math.ceil(1.4 * height / 8) - height) // 2 if margin is None else margin
        sets = [
            _morphed(part, margin, seed, split, copies if part is base.train else 1)
            for split, part in enumerate((base.train, base.validation, base.test))
        ]
        super().__init__(
            *sets,
            class_names=base.class_names,
            name=f"morphed-{base.name}",
            batch_size=base.batch_size,
            seed=seed,
        )


def morph(
    grey: Float[Tensor, "batch 1 height width"], factors: Float[Tensor, "batch 7"]
) -> Float[Tensor, "batch 3 height width"]:
    """Grey pictures, turned, moved, dimmed and coloured as the factors say.

    Args:
        grey: Pictures on black, in [0, 1].
        factors: In the order and the units of :data:`FACTORS`.
    """
    angle, x, y, brightness = factors[:, :4].unbind(1)
    height, width = grey.shape[2:]
    sine, cosine = torch.sin(torch.deg2rad(angle)), torch.cos(torch.deg2rad(angle))
    # From where a pixel of the result comes, in units of half a side; rows run downwards.
    ratio = width / height
    to_x, to_y = -2 * x / width, -2 * y / height
    rows = (
        torch.stack([cosine, -sine / ratio, cosine * to_x - sine / ratio * to_y], 1),
        torch.stack([sine * ratio, cosine, sine * ratio * to_x + cosine * to_y], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(grey.shape), align_corners=False)
    moved = functional.grid_sample(grey, grid, align_corners=False)
    return moved * (brightness[:, None] * factors[:, 4:])[:, :, None, None]


def draw_factors(n: int, side: int, generator: torch.Generator) -> Float[Tensor, "n 7"]:
    """Factors as :class:`MorphedDigits` draws them, for pictures of that height."""
    u = torch.rand(n, 7, generator=generator)
    colour = _PALEST + (1 - _PALEST) * u[:, 4:]
    return torch.cat(
        [
            _ANGLE * (2 * u[:, :1] - 1),
            _SHIFT * side * (2 * u[:, 1:3] - 1),
            _DARKEST + (1 - _DARKEST) * u[:, 3:4],
            colour / colour.amax(1, keepdim=True),
        ],
        1,
    )


def _morphed(part: ArraySet, margin: int, seed: int, split: int, copies: int) -> ArraySet:
    part = part.subset(torch.arange(copies * len(part)) % len(part)) if copies > 1 else part
    state = np.random.SeedSequence([seed % 2**63, 7, split]).generate_state(1)
    generator = torch.Generator().manual_seed(int(state[0]))
    side = part.shape[1]
    factors = draw_factors(len(part), side, generator)
    pad: list[int] = [margin] * 4
    pieces: list[Tensor] = []
    for x, some in zip(part.x.split(_CHUNK), factors.split(_CHUNK), strict=True):
        morphed = morph(functional.pad(as_floats(x), pad), some)
        pieces.append((morphed * 255).round().to(torch.uint8))
    return ArraySet(torch.cat(pieces), part.y, factors)

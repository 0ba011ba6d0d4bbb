"""Operators that change one thing in an image, by an amount or to a value.

All take and give floats in [0, 1], ``(batch, channels, height, width)``, draw nothing at random
and treat every image by itself. Those on strokes expect bright ones on black, of one colour.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from svae.sketches import measures
from svae.sketches.measures import FINE, check_images

__all__ = ["Blur", "Colour", "CornerRounding", "Joint", "Operator", "Slant", "Thickness"]

_CHUNK = 256  # images at a time: on the fine grid they take sixteen times the memory
_ROUNDS = 3  # corrections of an amount by what came out
_SOFTNESS = 0.4  # of the outline of thinned strokes, in pixels
_STEEPEST = 10.0  # times the contrast of an edge


class Operator(ABC):
    """Images to images of the same shape.

    Raises:
        TypeError: If they are not floating point.
        ValueError: If shape, range or channels do not fit.
    """

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images, changed."""
        check_images(images)
        if not len(images):
            return images
        with torch.no_grad():
            changed = [self._apply(chunk).clamp(0, 1) for chunk in images.split(_CHUNK)]
        return torch.cat(changed)

    @abstractmethod
    def _apply(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images, changed; what is outside of [0, 1] is clipped afterwards."""


@dataclass(frozen=True)
class Thickness(Operator):
    r"""Makes strokes thicker or thinner, keeping how sharp they are.

    Thickening dilates by a disc, on a grid four times as fine; thinning takes the same share of
    its width from every place of a stroke, so that strokes stay connected. Either goes as far as
    :func:`~svae.sketches.thickness` asks for. What is thinner than a pixel becomes darker.

    References:
        Morpho-MNIST (Castro et al., 2019), https://arxiv.org/abs/1809.10780

    Args:
        value: Factor on the thickness of each image, 1 changing nothing; with ``absolute`` the
            thickness afterwards, in pixels.
        absolute: Which of the two.

    Raises:
        ValueError: If ``value`` is not positive.

    Example:
        >>> bar = torch.zeros(1, 1, 28, 28)
        >>> bar[..., 12:15] = 1
        >>> measures.thickness(Thickness(2.0)(bar)).round()
        tensor([6.])
    """

    value: float = 1.0
    absolute: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise ValueError(
                f"thickness is {self.value}, expected more than 0: a factor, or pixels with "
                "absolute=True. Usual factors are .6 to 1.6."
            )

    def _apply(self, x: Tensor) -> Tensor:
        own = measures.thickness(x)
        target = torch.full_like(own, self.value) if self.absolute else own * self.value
        widths = cache(lambda: _local_widths(x))  # of the strokes, whatever they become
        return _reached(target, own, lambda t: _resized(x, own, t, widths), measures.thickness)


@dataclass(frozen=True)
class Slant(Operator):
    """Shears horizontally about the centre of mass.

    Args:
        value: Angle in degrees by which an upright stroke leans to the right afterwards; with
            ``absolute`` the :func:`~svae.sketches.slant` of the whole afterwards.
        absolute: Which of the two.

    Raises:
        ValueError: If ``value`` is not between -80 and 80.

    Example:
        >>> bar = torch.zeros(1, 1, 28, 28)
        >>> bar[..., 6:22, 13:15] = 1
        >>> measures.slant(Slant(20.0)(bar)).round()
        tensor([20.])
    """

    value: float = 0.0
    absolute: bool = False

    def __post_init__(self) -> None:
        if not -80 < self.value < 80:
            raise ValueError(
                f"slant is {self.value}, expected degrees between -80 and 80. Usual are -30 to 30."
            )

    def _apply(self, x: Tensor) -> Tensor:
        t = torch.full_like(x[:, 0, 0, 0], math.tan(math.radians(self.value)))
        if self.absolute:
            t = t - torch.tan(torch.deg2rad(measures.slant(x)))
        height, width = x.shape[-2:]
        # A pixel at (row, column) comes from column + t (row - centre); affine_grid has 1 at the
        # edges.
        centre = (2 * measures.centre_row(x) + 1) / height - 1
        t = t * height / width
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        theta = torch.stack([one, t, -t * centre, zero, one, zero], -1).unflatten(-1, (2, 3))
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bicubic", align_corners=False)


@dataclass(frozen=True)
class Colour(Operator):
    """Paints the strokes: what :func:`svae.data.coloured.decoloured` sees stays as it is.

    Args:
        value: Red, green and blue in [0, 1], not all 0.

    Raises:
        ValueError: If ``value`` is no such triple.

    Example:
        >>> red = Colour((1.0, 0.0, 0.0))(torch.rand(2, 3, 8, 8))
        >>> red.amax((0, 2, 3))
        tensor([1., 0., 0.])
    """

    value: Sequence[float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.value) != 3 or not all(0 <= c <= 1 for c in self.value) or not any(self.value):
            raise ValueError(
                f"colour is {self.value}, expected red, green and blue in [0, 1], not all 0. "
                "Divide bytes by 255."
            )
        object.__setattr__(self, "value", tuple(self.value))  # equal, whatever it was given as

    def _apply(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError(
                f"images have {x.shape[1]} channels, expected red, green and blue. Grey ones "
                "become white with x.expand(-1, 3, -1, -1)."
            )
        return measures.grey(x) * x.new_tensor(self.value)[:, None, None]


@dataclass(frozen=True)
class Blur(Operator):
    """Blurs with a Gaussian; the border repeats outwards.

    Args:
        value: Standard deviation in pixels, 0 changing nothing; with ``absolute`` the
            :func:`~svae.sketches.blur` afterwards. Where an image is more blurred than that, the
            contrast of its outlines is raised; finer than a pixel (.28) nothing can be.
        absolute: Which of the two.

    Raises:
        ValueError: If ``value`` is negative, or 0 with ``absolute``.

    Example:
        >>> edge = (torch.arange(28) > 13).float().expand(1, 1, 28, 28)
        >>> round(measures.blur(Blur(2.0)(edge)).item(), 1)
        2.0
    """

    value: float = 0.0
    absolute: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf or (self.absolute and not self.value):
            raise ValueError(
                f"blur is {self.value}, expected a standard deviation of 0 pixels or more, and "
                "more than 0 with absolute=True. Usual are .5 to 2."
            )

    def _apply(self, x: Tensor) -> Tensor:
        if not self.absolute:
            return gaussian(x, torch.full_like(x[:, 0, 0, 0], self.value))
        own = measures.blur(x)

        def at(sigma: Tensor) -> Tensor:
            blurred = gaussian(x, (sigma.square() - own.square()).clamp_min(0).sqrt())
            steeper = (own / sigma.clamp_min(1e-3)).clamp(1, _STEEPEST)
            sharp = (steeper > 1)[:, None, None, None]
            return torch.where(sharp, _rethresholded(x, _up(x), steeper), blurred)

        return _reached(torch.full_like(own, self.value), own, at, measures.blur)


@dataclass(frozen=True)
class CornerRounding(Operator):
    """Rounds the outline of strokes: corners and ends lose what is sharper than ``value`` pixels.

    On a grid four times as fine, the image is blurred and the contrast raised to what it was, at
    the level that keeps its sum, the area of the strokes.

    Args:
        value: Radius in pixels, the standard deviation of the blur; 0 changes nothing. Strokes
            thinner than twice that fade into each other.

    Raises:
        ValueError: If ``value`` is negative.

    Example:
        >>> square = torch.zeros(1, 1, 28, 28)
        >>> square[..., 8:20, 8:20] = 1
        >>> rounded = CornerRounding(2.0)(square)
        >>> rounded[0, 0, 8, 8] < 0.2, round(rounded.sum().item())
        (tensor(True), 144)
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf:
            raise ValueError(
                f"radius of rounding is {self.value}, expected 0 pixels or more. "
                "Usual are .5 to 1.5."
            )

    def _apply(self, x: Tensor) -> Tensor:
        if not self.value:
            return x
        own = measures.blur(x).clamp_min(1e-3)
        radius = torch.full_like(own, self.value)
        steeper = (own.square() + radius.square()).sqrt() / own
        return _rethresholded(x, gaussian(_up(x), FINE * radius), steeper, keep_sum=True)


@dataclass(frozen=True)
class Joint(Operator):
    """Several operators, one after the other.

    Args:
        operators: At least one.

    Raises:
        ValueError: If there is none.
        TypeError: If one is no operator.

    Example:
        >>> Joint((Slant(10.0), Blur(0.5)))(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    operators: Sequence[Operator]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(self.operators))
        if not self.operators:
            raise ValueError("no operator came, expected at least one, as in Joint([Slant(10)]).")
        for operator in self.operators:
            if not isinstance(operator, Operator):
                raise TypeError(
                    f"one of the operators is a {type(operator).__name__}, expected operators of "
                    "svae.sketches such as Slant(10)."
                )

    def _apply(self, x: Tensor) -> Tensor:
        for operator in self.operators:
            x = operator(x)
        return x


def gaussian(
    x: Float[Tensor, "batch channels height width"], sigma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    r"""Blurs every image by a standard deviation of its own.

    The kernel is :math:`e^{-\sigma^2} I_n(\sigma^2)`, whose variance on the grid is exactly
    :math:`\sigma^2`, and which is the identity at 0.

    References:
        Scale-Space for Discrete Signals (Lindeberg, 1990), https://doi.org/10.1109/34.49051
    """
    from scipy.special import ive

    batch, channels = x.shape[:2]
    widest = float(sigma.max())
    reach = math.ceil(4 * widest)
    if not reach:
        return x
    own, places = sigma.cpu().double().numpy()[:, None], np.abs(np.arange(-reach, reach + 1))
    taps = ive(places, own**2) * (places <= np.ceil(4 * own))  # not those of a wider neighbour
    kernel = torch.from_numpy(taps / taps.sum(1, keepdims=True)).to(x)
    weight = kernel.repeat_interleave(channels, 0)[:, None, None]
    flat = x.reshape(1, batch * channels, *x.shape[2:])
    flat = F.pad(flat, (reach, reach, reach, reach), mode="replicate")
    flat = F.conv2d(flat, weight, groups=batch * channels)
    flat = F.conv2d(flat, weight.mT, groups=batch * channels)
    return flat.reshape(x.shape)


def _reached(
    target: Tensor,
    own: Tensor,
    at: Callable[[Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
) -> Tensor:
    """What ``at`` gives for the argument that makes the measure of it the target.

    Images that have the target come back from ``at(own)``, which changes nothing.
    """
    tiny = torch.finfo(own.dtype).tiny
    amount = torch.where((target - own).abs() <= 1e-4 * own, own, target)
    changed = at(amount)
    for _ in range(_ROUNDS - 1):
        found = measure(changed.clamp(0, 1))
        # At most twice or half as much: where nothing more can be changed, it would run away.
        amount = amount * torch.where(amount == own, 1, target / found.clamp_min(tiny)).clamp(
            0.5, 2
        )
        changed = at(amount)
    return changed


def _up(x: Tensor) -> Tensor:
    fine = F.interpolate(x, scale_factor=FINE, mode="bicubic", align_corners=False)
    return fine.clamp(0, 1)


def _rethresholded(x: Tensor, fine: Tensor, steeper: Tensor, keep_sum: bool = False) -> Tensor:
    """Raises the contrast of a fine image about half of the brightness, or where the sum stays."""
    top = x.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    steeper, fine = steeper[:, None, None, None], fine / top
    level = torch.full_like(top, 0.5)
    if keep_sum:
        mean = (x / top).mean((-2, -1), keepdim=True)
        low, high = torch.zeros_like(level), torch.ones_like(level)
        for _ in range(16):
            level = (low + high) / 2
            found = ((fine - level) * steeper + 0.5).clamp(0, 1).mean((-2, -1), keepdim=True)
            low, high = (torch.where(found > mean, a, b) for a, b in ((level, low), (high, level)))
    changed = F.avg_pool2d(((fine - level) * steeper + 0.5).clamp(0, 1), FINE) * top
    # What the way to the fine grid and back loses, all of it where nothing else is changed.
    return changed + (x - F.avg_pool2d(_up(x), FINE)) / steeper.square()


def _resized(
    x: Tensor, own: Tensor, target: Tensor, widths: Callable[[], tuple[Tensor, Tensor]]
) -> Tensor:
    """Strokes of the thickness ``own`` brought near to ``target``."""
    result = x.clone()
    more, less = target > own, target < own
    if bool(more.any()):
        result[more] = _thickened(x[more], (target - own)[more] / 2)
    if bool(less.any()):
        depth, local = (value[less] for value in widths())
        result[less] = _thinned(x[less], (target / own)[less], depth, local)
    return result


def _thickened(x: Tensor, radius: Tensor) -> Tensor:
    """Every level set dilated by a radius in pixels."""
    fine = F.interpolate(x, scale_factor=FINE, mode="nearest")
    steps = radius * FINE
    lower = steps.floor()
    result = torch.empty_like(fine)
    for step in lower.unique().tolist():
        rows = lower == step
        share = (steps[rows] - step)[:, None, None, None]
        low, high = (_dilated(fine[rows], int(step) + more) for more in (0, 1))
        result[rows] = low + share * (high - low)
    return F.avg_pool2d(result, FINE)


def _local_widths(x: Tensor) -> tuple[Tensor, Tensor]:
    """On the fine grid: how deep in its stroke a place is, and the largest disc that covers it."""
    depth = measures.depth(_up(measures.grey(x)) >= 0.5).to(x)
    local, deepest = depth.clone(), depth.amax((1, 2, 3))
    for radius in range(1, math.ceil(float(depth.max()))):
        rows = deepest >= radius
        # All places within radius - 1 of one that is so deep.
        near = measures.depth(depth[rows] < radius) <= radius - 1
        local[rows] = torch.maximum(local[rows], radius * near.to(x))
    return depth, local


def _thinned(x: Tensor, factor: Tensor, depth: Tensor, local: Tensor) -> Tensor:
    """Darkens what is farther from the middle of its stroke than a factor of half its width."""
    outside = (1 - factor)[:, None, None, None] * local
    softness = torch.full_like(factor, _SOFTNESS)
    thin, whole = (
        gaussian(F.avg_pool2d((depth - out).clamp(0, 1), FINE), softness)
        for out in (outside, torch.zeros_like(outside))
    )
    return x * ((thin + 1e-4) / (whole + 1e-4))


def _dilated(fine: Tensor, radius: int) -> Tensor:
    """The largest value within a disc, row by row of the disc."""
    height = fine.shape[-2]
    result = fine
    for down in range(radius + 1):
        across = math.isqrt(radius**2 - down**2)
        row = F.max_pool2d(fine, (1, 2 * across + 1), stride=1, padding=(0, across))
        padded = F.pad(row, (0, 0, down, down))
        result = torch.maximum(result, padded[..., :height, :])
        result = torch.maximum(result, padded[..., 2 * down :, :])
    return result

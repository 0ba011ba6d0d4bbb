"""Digits in six colours, three strengths of stroke and three slants, each with a caption."""

import colorsys
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from svae.data.arrays import ArraySet
from svae.data.batch import as_floats
from svae.data.coloured import paint
from svae.data.module import ArrayData
from svae.data.pairing import SPLITS, PairedData
from svae.sketches import Slant, Thickness, measures

__all__ = ["ATTRIBUTES", "DIGIT_WORDS", "CaptionedDigits", "caption", "read_attributes"]

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "yellow", "green", "cyan", "blue", "magenta"),
    "thickness": ("thin", "medium", "thick"),
    "slant": ("left", "upright", "right"),
}
_WORDS = {  # what captions say, for variety
    "thickness": (("thin", "fine"), ("medium", "plain"), ("thick", "bold")),
    "slant": (
        ("slanted left", "leaning left"),
        ("upright", "straight"),
        ("slanted right", "leaning right"),
    ),
}
_PATTERNS = (
    "a {thickness} {colour} {digit}, {slant}",
    "{digit} in {colour}, {thickness} and {slant}",
    "a {colour} {digit} that is {thickness} and {slant}",
)
_THICKNESS = (0.07, 0.11, 0.16)  # of the side of a picture
_SLANT = (-25.0, 0.0, 25.0)  # degrees to the right
_HUE = 0.04  # half the range within a colour, in turns
_CHUNK = 2000
_SIDE = 28  # pixels; smaller pictures are enlarged: their strokes are one pixel wide


class CaptionedDigits(PairedData):
    """Pictures of digits and what a person could write below them, at least 28 pixels high.

    Each picture is drawn anew with a thickness, a slant (as :mod:`svae.sketches.measures` measures
    them) and a colour of one of six hues; hue, saturation and brightness vary within a colour. The
    caption names digit, colour, thickness and slant, in one of several wordings. All else, the
    handwriting, is what captions leave open. Factors are the numbers of the attributes in
    :data:`ATTRIBUTES`; everything is a function of ``(seed, split, index)``.

    Args:
        base: Grey pictures of digits ``(1, height, width)`` on black.
        seed: Of attributes and wordings.
        copies: How often each training picture comes, each time with attributes of its own.
        drawn: The sets, where they were drawn before with the same base and seed.

    Raises:
        ValueError: If the pictures are not grey, there are not ten classes, or ``copies`` is less
            than 1.
    """

    factor_names = tuple(ATTRIBUTES)

    def __init__(
        self,
        base: ArrayData,
        seed: int = 0,
        copies: int = 1,
        drawn: Sequence[ArraySet] | None = None,
    ) -> None:
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        if tuple(base.x_shape[:-2]) != (1,) or base.n_classes != len(DIGIT_WORDS):
            raise ValueError(
                f"expected grey pictures (1, height, width) of ten digits, got {base.n_classes} "
                f"classes of shape {tuple(base.x_shape)}"
            )
        if drawn is None:
            train = base.train.subset(torch.arange(len(base.train)).repeat(copies))
            parts = enumerate((train, base.validation, base.test))
            drawn = [_drawn(_enlarged(part), seed, split) for split, part in parts]
        data = ArrayData(
            *drawn,
            class_names=base.class_names,
            name=f"captioned-{base.name}",
            batch_size=base.batch_size,
            seed=seed,
        )
        captions = [_captions(part, seed, split) for split, part in enumerate(drawn)]
        super().__init__(data, dict(zip(SPLITS, captions, strict=True)))
        self.factor_names = tuple(ATTRIBUTES)

    @classmethod
    def of_drawn(
        cls, base: ArrayData, train: ArraySet, validation: ArraySet, test: ArraySet, seed: int = 0
    ) -> "CaptionedDigits":
        """The same from sets that were drawn before, with the same base and seed."""
        return cls(base, seed, drawn=(train, validation, test))


def caption(digit: int, colour: int, thickness: int, slant: int, wording: int = 0) -> str:
    """A caption; numbers are those of :data:`DIGIT_WORDS` and :data:`ATTRIBUTES`.

    Args:
        digit: The digit.
        colour: Number of the colour.
        thickness: Number of the thickness.
        slant: Number of the slant.
        wording: Which of the twelve wordings.

    Example:
        >>> caption(7, 0, 2, 0)
        'a thick red seven, slanted left'
    """
    pattern = _PATTERNS[wording % len(_PATTERNS)]
    rest = wording // len(_PATTERNS)
    return pattern.format(
        digit=DIGIT_WORDS[digit],
        colour=ATTRIBUTES["colour"][colour],
        thickness=_WORDS["thickness"][thickness][rest % 2],
        slant=_WORDS["slant"][slant][rest // 2 % 2],
    )


def read_attributes(
    x: Float[Tensor, "batch 3 height width"],
) -> dict[str, Int64[Tensor, " batch"]]:
    """Colour, thickness and slant of pictures, measured: the nearest of those that captions name.

    Returns:
        By name of the attribute, its number in :data:`ATTRIBUTES`.
    """
    levels = {
        "thickness": (measures.thickness(x), [x.shape[-1] * share for share in _THICKNESS]),
        "slant": (measures.slant(x), _SLANT),
    }
    found = {"colour": _nearest_colour(measures.colour(x))}
    for name, (value, centres) in levels.items():
        found[name] = (value[:, None] - torch.tensor(centres).to(value)).abs().argmin(1)
    return found


def _nearest_colour(colour: Tensor) -> Tensor:
    red, green, blue = colour.unbind(1)
    angle = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)
    n = len(ATTRIBUTES["colour"])
    return (angle / (2 * math.pi) * n).round().long() % n


def _generator(seed: int, split: int, what: int) -> torch.Generator:
    return torch.Generator().manual_seed(((seed * 3 + split) * 2 + what) * 7919 + 11)


def _enlarged(part: ArraySet) -> ArraySet:
    height, width = part.shape[1:]
    if height >= _SIDE:
        return part
    size = [_SIDE, math.ceil(_SIDE * width / height)]
    x = functional.interpolate(part.floats(), size, mode="bicubic").clamp(0, 1)
    return ArraySet((255 * x).round().to(torch.uint8), part.y)


def _drawn(part: ArraySet, seed: int, split: int) -> ArraySet:
    n, generator = len(part), _generator(seed, split, 0)
    u = torch.rand(n, 6, generator=generator)
    factors = torch.stack(
        [
            (u[:, i] * len(values)).long().clamp(max=len(values) - 1)
            for i, values in enumerate(ATTRIBUTES.values())
        ],
        1,
    )
    hues = factors[:, 0] / len(ATTRIBUTES["colour"]) + _HUE * (2 * u[:, 3] - 1)
    shades = torch.stack([hues % 1, 0.75 + 0.25 * u[:, 4], 0.6 + 0.4 * u[:, 5]], 1)
    colours = torch.tensor([colorsys.hsv_to_rgb(*shade) for shade in shades.tolist()])
    x = torch.empty(n, 3, *part.shape[1:], dtype=torch.uint8)
    for rows in torch.arange(n).split(_CHUNK):
        for thickness, share in enumerate(_THICKNESS):
            for slant, degrees in enumerate(_SLANT):
                wanted = (factors[rows, 1] == thickness) & (factors[rows, 2] == slant)
                some = rows[wanted]
                if not len(some):
                    continue
                grey = as_floats(part.x[some])
                # A shear narrows strokes, so the thickness comes last; it hardly moves the slant.
                leant = Slant(degrees, absolute=True)(grey)
                grey = Thickness(share * part.shape[-1], absolute=True)(leant)
                x[some] = (255 * paint(grey, colours[some])).round().to(torch.uint8)
    return ArraySet(x, part.y, factors.float())


def _captions(part: ArraySet, seed: int, split: int) -> list[str]:
    assert part.y is not None
    assert part.factors is not None
    n_wordings = 4 * len(_PATTERNS)
    wordings = torch.randint(n_wordings, (len(part),), generator=_generator(seed, split, 1))
    rows = torch.cat([part.y[:, None], part.factors.long(), wordings[:, None]], 1)
    return [caption(*row) for row in rows.tolist()]

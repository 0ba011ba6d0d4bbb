"""A concept at two values: pairs of images that differ in it and in nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from svae.sketches import measures
from svae.sketches.operators import Blur, Colour, Joint, Operator, Slant, Thickness

__all__ = ["Sketch", "sketch_from_images"]

CONCEPTS = ("slant", "thickness", "blur", "colour")  # in the order of their application


@dataclass(frozen=True)
class Sketch:
    """A concept, by two operators that differ in their values.

    Args:
        name: Of the concept.
        first: Its first value.
        second: Its second value, by an operator of the same kind.

    Raises:
        ValueError: If the two are of different kinds, or equal.

    Example:
        >>> sketch = Sketch("slant", Slant(-20.0), Slant(20.0))
        >>> x = torch.zeros(1, 1, 28, 28)
        >>> x[..., 6:22, 13:15] = 1
        >>> [measures.slant(side).round().item() for side in sketch.render(x)]
        [-20.0, 20.0]
    """

    name: str
    first: Operator
    second: Operator

    def __post_init__(self) -> None:
        kinds = [_kinds(side) for side in (self.first, self.second)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"the sketches of {self.name!r} change {' and '.join(kinds[0])} on one side and "
                f"{' and '.join(kinds[1])} on the other, expected the same at two values, as in "
                "Sketch('slant', Slant(-20), Slant(20))."
            )
        if self.first == self.second:
            raise ValueError(
                f"both sketches of {self.name!r} are {self.first}, expected two different values."
            )

    def render(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[
        Float[Tensor, "batch channels height width"], Float[Tensor, "batch channels height width"]
    ]:
        """Every image at the first and at the second value.

        ``(x, x_first)``, ``(x, x_second)`` and ``(x_first, x_second)`` differ in the concept only.
        """
        return self.first(x), self.second(x)


def _kinds(operator: Operator) -> list[str]:
    if isinstance(operator, Joint):
        return [kind for part in operator.operators for kind in _kinds(part)]
    return [type(operator).__name__ + " to" * getattr(operator, "absolute", False)]


def sketch_from_images(
    name: str,
    first: Float[Tensor, "channels height width"],
    second: Float[Tensor, "channels height width"],
    concepts: Sequence[str] | None = None,
) -> Sketch:
    """The concept in which two example images differ, measured on them.

    :func:`~svae.sketches.thickness`, :func:`~svae.sketches.slant`,
    :func:`~svae.sketches.blur` and, in colour images, :func:`~svae.sketches.colour` are measured
    on both. The sketch brings any image to the values of the one and of the other. The examples
    may show different things: only these four measures are read.

    Args:
        name: Of the concept.
        first: Bright strokes on black, in [0, 1].
        second: The same, at the other value.
        concepts: Which of ``thickness``, ``slant``, ``blur`` and ``colour`` make up the concept;
            by default those that differ: thickness or blur by a tenth, slant by 5 degrees, a
            channel of the colour by .1.

    Raises:
        ValueError: If the shapes are wrong, an image is black, a concept is not known, or the two
            do not differ.

    Example:
        >>> thin, thick = torch.zeros(2, 1, 28, 28)
        >>> thin[..., 13:15] = 1
        >>> thick[..., 11:17] = 1
        >>> sketch = sketch_from_images("weight", thin, thick, concepts=["thickness"])
        >>> round(sketch.first.value), round(sketch.second.value)
        (2, 6)
    """
    for side, image in (("first", first), ("second", second)):
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ValueError(
                f"the {side} example has shape {tuple(image.shape)}, expected (channels, height, "
                "width) with 1 or 3 channels. Take one of a batch: x[0]."
            )
        if not bool(image.any()):
            raise ValueError(
                f"the {side} example is black, expected bright strokes on black. Dark ones on "
                "white become so with 1 - x."
            )
    if len(first) != len(second):
        raise ValueError(
            f"the examples have {len(first)} and {len(second)} channels, expected the same number."
        )
    known = CONCEPTS if len(first) == 3 else CONCEPTS[:-1]
    unknown = sorted(set(concepts or ()) - set(known))
    if unknown:
        raise ValueError(
            f"no concept {unknown[0]!r} in images of {len(first)} channels, expected some of "
            f"{', '.join(known)}."
        )
    values = {concept: _measured(concept, first, second) for concept in known}
    kept = [c for c in known if (c in concepts if concepts else _differ(c, *values[c]))]
    if not kept:
        raise ValueError(
            "the examples differ in none of "
            + ", ".join(f"{c} ({_said(a)} and {_said(b)})" for c, (a, b) in values.items())
            + ". Give examples that differ more, or say in what: concepts=['thickness']."
        )
    sides = [[_operator(c, values[c][side]) for c in kept] for side in (0, 1)]
    operators = [side[0] if len(side) == 1 else Joint(tuple(side)) for side in sides]
    return Sketch(name, *operators)


def _measured(concept: str, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    measure = getattr(measures, concept)
    return measure(first[None])[0], measure(second[None])[0]


def _differ(concept: str, a: Tensor, b: Tensor) -> bool:
    if concept == "slant":
        return bool((a - b).abs() > 5)
    if concept == "colour":
        return bool((a - b).abs().max() > 0.1)
    return bool((a - b).abs() > 0.1 * torch.minimum(a, b))


def _said(value: Tensor) -> str:
    return ", ".join(f"{v:.2f}" for v in value.reshape(-1).tolist())


def _operator(concept: str, value: Tensor) -> Operator:
    if concept == "colour":
        red, green, blue = value.clamp(0, 1).tolist()
        return Colour((red, green, blue))
    kind = {"slant": Slant, "thickness": Thickness, "blur": Blur}[concept]
    return kind(float(value), absolute=True)

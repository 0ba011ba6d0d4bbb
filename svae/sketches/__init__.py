"""Concepts defined by two sketches: operators on images, measures of strokes, pairs."""

from svae.sketches.measures import blur, colour, slant, thickness
from svae.sketches.operators import (
    Blur,
    Colour,
    CornerRounding,
    Joint,
    Operator,
    Slant,
    Thickness,
)
from svae.sketches.pairs import Sketch, sketch_from_images

__all__ = [
    "Blur",
    "Colour",
    "CornerRounding",
    "Joint",
    "Operator",
    "Sketch",
    "Slant",
    "Thickness",
    "blur",
    "colour",
    "sketch_from_images",
    "slant",
    "thickness",
]

"""Concepts defined by two sketches: operators on images, measures of strokes, pairs."""

from svae.sketches.frames import Rotation, Shift, Size
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
from svae.sketches.tones import Brightness, Contrast, Hue, Saturation

__all__ = [
    "Blur",
    "Brightness",
    "Colour",
    "Contrast",
    "CornerRounding",
    "Hue",
    "Joint",
    "Operator",
    "Rotation",
    "Saturation",
    "Shift",
    "Size",
    "Sketch",
    "Slant",
    "Thickness",
    "blur",
    "colour",
    "sketch_from_images",
    "slant",
    "thickness",
]

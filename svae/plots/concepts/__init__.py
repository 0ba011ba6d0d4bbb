"""Parts of a latent drawn: sheets of pictures, and charts of codes and answers."""

from svae.plots.concepts.charts import concept_axes, responses, walk
from svae.plots.concepts.sheets import interpolations, linearisation, resampled_parts, transfer

__all__ = [
    "concept_axes",
    "interpolations",
    "linearisation",
    "resampled_parts",
    "responses",
    "transfer",
    "walk",
]

"""Pictures of a factorization, its codes and its training, as matplotlib figures.

Every function returns a figure of its own, without pyplot or its global state;
:func:`save` writes it as a small PNG.
"""

from svae.plots.concepts import (
    concept_axes,
    interpolations,
    linearisation,
    resampled_parts,
    responses,
    transfer,
    walk,
)
from svae.plots.curves import confusion, training_curves
from svae.plots.embeddings import embed, embedding
from svae.plots.grids import (
    class_samples,
    image_grid,
    nuisance_grid,
    reconstructions,
    swap_grid,
)
from svae.plots.layers import layer_invariances, layer_shares, perturbed, profile
from svae.plots.saving import save
from svae.plots.translations import translations  # functions, which hide the modules
from svae.plots.traversals import traversals

__all__ = [
    "class_samples",
    "concept_axes",
    "confusion",
    "embed",
    "embedding",
    "image_grid",
    "interpolations",
    "layer_invariances",
    "layer_shares",
    "linearisation",
    "nuisance_grid",
    "perturbed",
    "profile",
    "reconstructions",
    "resampled_parts",
    "responses",
    "save",
    "swap_grid",
    "training_curves",
    "transfer",
    "translations",
    "traversals",
    "walk",
]

"""Grids of images: reconstructions, samples, resampled and swapped nuisances."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from svae.factorization import Factorization, reconstruct, resample_nuisance, swap_nuisance
from svae.plots.canvas import Sheet, pixels

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["class_samples", "image_grid", "nuisance_grid", "reconstructions", "swap_grid"]

BATCH = ("batch", "channels", "height", "width")
COLUMNS = 12  # columns of reconstructions before a new pair of rows begins


def image_grid(
    images: Shaped[Tensor | np.ndarray, "rows columns *shape"],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
) -> "matplotlib.figure.Figure":
    """Draws images as they are given, row by row.

    Args:
        images: Grey or colour images of shape (rows, columns, channels, height, width), floats
            in [0, 1] (values outside are clipped) or integers in 0..255.
        row_labels: One text for each row.
        column_labels: One text for each column.
        title: Text above the grid.

    Raises:
        ValueError: If the images have another shape or values that are not finite, or the
            numbers of labels differ from those of rows and columns.

    Example:
        >>> figure = image_grid(torch.rand(2, 3, 1, 8, 8), column_labels=["a", "b", "c"])
        >>> len(figure.axes[0].images)
        6
    """
    grid = pixels(images, ("rows", "columns", *BATCH[1:]))
    for kind, labels, n in zip(
        ("row", "column"), (row_labels, column_labels), grid.shape, strict=False
    ):
        if labels is not None and len(labels) != n:
            raise ValueError(
                f"the grid has {n} {kind}s, got {len(labels)} {kind} labels. "
                f"Give one label for each {kind}, or None."
            )
    cells = {(row, column): grid[row, column] for row, column in np.ndindex(grid.shape[:2])}
    sheet = Sheet(cells, row_labels=row_labels or (), column_labels=column_labels or ())
    return sheet.draw(title)


@torch.no_grad()
def reconstructions(
    factorization: Factorization, x: Float[Tensor, " batch *event"]
) -> "matplotlib.figure.Figure":
    """Originals, framed, over their reconstructions ``decode(encode(x))``.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Images of shape (batch, channels, height, width); more than twelve continue below.

    Raises:
        ValueError: If ``x`` or what is decoded are no images.
    """
    originals = pixels(x, BATCH)
    decoded = pixels(reconstruct(factorization, x), BATCH)
    n_blocks = -(-len(originals) // COLUMNS)
    columns = -(-len(originals) // n_blocks)  # blocks of equal length
    cells, framed = {}, set()
    for i, (original, reconstruction) in enumerate(zip(originals, decoded, strict=True)):
        row, column = 2 * (i // columns), i % columns
        cells[row, column], cells[row + 1, column] = original, reconstruction
        framed.add((row, column))
    return Sheet(
        cells,
        framed,
        row_gaps=set(range(2, 2 * n_blocks, 2)),
        row_labels=["input", "reconstruction"] * n_blocks,
    ).draw("Inputs and their reconstructions")


def class_samples(
    samples: Shaped[Tensor | np.ndarray, "n classes *shape"],
    class_names: Sequence[str],
    title: str = "New images, sampled by class",
) -> "matplotlib.figure.Figure":
    """Samples of given classes: one row for each class.

    Args:
        samples: Images of shape (n, classes, channels, height, width), as
            ``vae.sample(torch.arange(n_classes), n)`` returns them.
        class_names: Names of the classes, in the order of the second dim.
        title: Text above the grid.

    Raises:
        ValueError: If the samples are no such images, or the names are not one for each class.
    """
    if samples.ndim == 5 and len(class_names) != samples.shape[1]:
        raise ValueError(
            f"samples have {samples.shape[1]} classes in dim 1, got {len(class_names)} class "
            "names. Are the samples of shape (n, classes, channels, height, width)?"
        )
    by_class = samples.swapaxes(0, 1) if samples.ndim == 5 else samples
    return image_grid(by_class, row_labels=class_names, title=title)


@torch.no_grad()
def nuisance_grid(
    factorization: Factorization,
    x: Float[Tensor, " batch *event"],
    n: int = 8,
    generator: torch.Generator | None = None,
    class_names: Sequence[str] | None = None,
) -> "matplotlib.figure.Figure":
    r"""What the model ignores: each input beside versions of it with another nuisance.

    .. math:: \mathrm{decode}(z_c(x), v_j), \quad v_j \sim p(z_n \mid z_c(x)), \quad j = 1..n

    A row shows the input, framed, what is decoded with its own nuisance, and ``n`` images with
    nuisances from the prior. A faithful model keeps the class along the row.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Images of shape (batch, channels, height, width), one row each.
        n: Resamples of each input, at least 1.
        generator: Source of the draws, for a repeatable picture.
        class_names: Where given, a row is labelled with the class that the model reads.

    Raises:
        ValueError: If ``n`` is less than 1, or ``x`` or what is decoded are no images.
    """
    originals = pixels(x, BATCH)
    own = pixels(reconstruct(factorization, x), BATCH)
    resampled = resample_nuisance(factorization, x, n, generator)
    others = pixels(resampled, ("n", *BATCH))
    cells: dict[tuple[int, int], np.ndarray] = {}
    for row in range(len(originals)):
        cells[row, 0], cells[row, 1] = originals[row], own[row]
        cells.update({(row, 2 + j): others[j, row] for j in range(n)})
    labels = []
    if class_names is not None:
        classes = factorization.predict(x).argmax(-1).tolist()
        labels = [f"read as {class_names[k]}" for k in classes]
    return Sheet(
        cells,
        framed={(row, 0) for row in range(len(originals))},
        column_gaps={1, 2},
        row_labels=labels,
        column_labels=["input", "decoded", *map(str, range(1, n + 1))],
        column_title="nuisance resampled from its prior",
    ).draw("Same class code, other nuisance")


@torch.no_grad()
def swap_grid(
    factorization: Factorization, x: Float[Tensor, " batch *event"]
) -> "matplotlib.figure.Figure":
    r"""Every class code with every nuisance: the class of the row, the nuisance of the column.

    .. math:: \mathrm{decode}(z_c(x_{\mathrm{row}}), z_n(x_{\mathrm{column}}))

    The originals stand, framed, on both margins; the diagonal holds the reconstructions.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Images of shape (batch, channels, height, width); about ten, as the grid has their
            number squared.

    Raises:
        ValueError: If ``x`` or what is decoded are no images.
    """
    originals = pixels(x, BATCH)
    n = len(originals)
    pairs = x.repeat_interleave(n, 0), x.repeat(n, *[1] * (x.ndim - 1))
    swapped = pixels(swap_nuisance(factorization, *pairs), BATCH)
    cells: dict[tuple[int, int], np.ndarray] = {}
    for i, original in enumerate(originals):
        cells[0, 1 + i] = cells[1 + i, 0] = original
    framed = set(cells)
    cells.update({(1 + k // n, 1 + k % n): image for k, image in enumerate(swapped)})
    return Sheet(
        cells,
        framed,
        row_gaps={1},
        column_gaps={1},
        row_title="class of",
        column_title="nuisance of",
    ).draw("Class of the row, nuisance of the column")

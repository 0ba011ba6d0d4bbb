"""What a source becomes: its translations, and the mean of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from svae.data.batch import as_floats
from svae.plots.canvas import Sheet, pixels
from svae.plots.grids import BATCH

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["translations"]


def translations(
    drawn: Float[Tensor, "n batch *event"],
    labels: Sequence[str] | None = None,
    source: Float[Tensor, "batch ..."] | None = None,
    mean: Float[Tensor, "batch *event"] | None = None,
    target: Float[Tensor, "batch *event"] | None = None,
    title: str = "Translations",
) -> "matplotlib.figure.Figure":
    """A row for each input of the source, with draws, and what they should be compared with.

    Args:
        drawn: Translations, ``bridge.translate(x, n)``.
        labels: What the rows are: captions, attributes.
        source: The inputs of the source, where they are pictures.
        mean: What the mean translator gives.
        target: The target's own input that belongs to each, framed as the source is.
        title: Text above.

    Raises:
        ValueError: If the numbers of rows differ, or something is no picture.

    Example:
        >>> figure = translations(torch.rand(3, 2, 1, 8, 8), labels=["a one", "a two"])
    """
    batch = drawn.shape[1]
    draws = [(str(k + 1), x) for k, x in enumerate(drawn)]
    every = [("source", source), ("real", target), *draws, ("mean", mean)]
    columns = [(name, x) for name, x in every if x is not None]
    titles = [name for name, _ in columns]
    cells: dict[tuple[int, int], np.ndarray] = {}
    for column, (name, x) in enumerate(columns):
        if len(x) != batch:
            what = "means" if name == "mean" else f"{name} pictures"
            raise ValueError(f"got {len(x)} {what} for {batch} rows of draws")
        same = pixels(_as_large(x, drawn.shape[2:]), BATCH)
        cells.update({(row, column): one for row, one in enumerate(same)})
    most = max(one.shape[-1] for one in cells.values())  # grey beside colours
    cells = {place: one.repeat(most // one.shape[-1], -1) for place, one in cells.items()}
    first = titles.index("1")
    gaps = {first, first + len(drawn)} - {0}
    framed = {(row, column) for row in range(batch) for column in range(first)}
    return Sheet(
        cells,
        framed=framed,
        column_gaps=gaps,
        row_labels=labels or (),
        column_labels=titles,
    ).draw(title)


def _as_large(pictures: Tensor, shape: Sequence[int]) -> Tensor:
    """Pixels repeated to a larger side; a grey channel stays one."""
    if pictures.shape[1:] == shape:
        return pictures
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or len(shape) != 3:
        raise ValueError(
            "expected pictures (batch, channels, height, width) of one channel or three, got "
            f"{tuple(pictures.shape)} beside draws of shape {tuple(shape)}: leave out a source "
            "that is none, and give labels="
        )
    return functional.interpolate(as_floats(pictures).float(), tuple(shape[1:]), mode="nearest")

"""What a source becomes: its translations, and the mean of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

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
    rows = pixels(drawn, ("n", *BATCH))
    n, batch = rows.shape[:2]
    cells: dict[tuple[int, int], np.ndarray] = {}
    framed: set[tuple[int, int]] = set()
    titles: list[str] = []
    gaps: set[int] = set()
    for name, pictures in (("source", source), ("real", target)):
        if pictures is None:
            continue
        if len(pictures) != batch:
            raise ValueError(f"got {len(pictures)} {name} pictures for {batch} rows of draws")
        same = _as_large(pictures, drawn.shape[2:])
        cells.update({(row, len(titles)): one for row, one in enumerate(pixels(same, BATCH))})
        framed |= {(row, len(titles)) for row in range(batch)}
        titles.append(name)
    gaps.add(len(titles))
    for k in range(n):
        cells.update({(row, len(titles)): one for row, one in enumerate(rows[k])})
        titles.append(str(k + 1))
    if mean is not None:
        if len(mean) != batch:
            raise ValueError(f"got {len(mean)} means for {batch} rows of draws")
        gaps.add(len(titles))
        cells.update({(row, len(titles)): one for row, one in enumerate(pixels(mean, BATCH))})
        titles.append("mean")
    return Sheet(
        cells,
        framed=framed,
        column_gaps=gaps - {0},
        row_labels=labels or (),
        column_labels=titles,
    ).draw(title)


def _as_large(pictures: Tensor, shape: Sequence[int]) -> Tensor:
    """Pixels repeated to a larger side, a grey channel to three."""
    channels, height, width = shape
    large = functional.interpolate(pictures.float(), (height, width), mode="nearest")
    return large if large.shape[1] == channels else large.expand(-1, channels, -1, -1)

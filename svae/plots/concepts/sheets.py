"""Parts of a latent as pictures: exchanged, moved, drawn anew, and on two straight lines."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svae.editing import (
    Lines,
    interpolate_part,
    resample_part,
    transfer_grid,
)
from svae.factorization import Factorization
from svae.plots.canvas import DPI, HEADING, LABEL, Sheet, pixels
from svae.plots.embeddings import (
    PALETTE,
)

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["interpolations", "linearisation", "resampled_parts", "transfer"]
BATCH = ("batch", "channels", "height", "width")
PANEL, BEFORE, AFTER, BELOW = 270, 66, 24, 104  # of curves beside a sheet and around, in pixels


@torch.no_grad()
def transfer(
    factorization: Factorization,
    x: Float[Tensor, " n *event"],
    name: str | Sequence[str],
    other: Float[Tensor, " m *shape"] | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> "matplotlib.figure.Figure":
    r"""Every input with one part, or several, of every other: analogies.

    .. math:: \mathrm{decode}(z(x_{\mathrm{row}})
        \text{ with the part } z_F(x_{\mathrm{column}}))

    The originals stand, framed, on both margins; where ``other`` is ``x``, the diagonal holds the
    reconstructions.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Images of shape (n, channels, height, width), one row each: what is kept.
        name: The part or parts that the columns give.
        other: Images of the same kind, one column each; ``x`` itself if None.
        row_labels: One text for each of ``x``.
        column_labels: One text for each of ``other``.

    Raises:
        ValueError: If these are no images of one shape, the numbers of labels differ from theirs,
            or there is no such part.
    """
    names, other = listed(name), x if other is None else other
    rows, columns = _both(x, other)
    for kind, labels, n in (("x", row_labels, len(x)), ("other", column_labels, len(other))):
        if labels is not None and len(labels) != n:
            raise ValueError(
                f"{kind} has {n} images, got {len(labels)} labels for them. Give one label for "
                "each image, or None."
            )
    images = pixels(transfer_grid(factorization, x, name, other), ("n", "m", *BATCH[1:]))
    cells = {(1 + i, 0): image for i, image in enumerate(rows)}
    cells.update({(0, 1 + j): image for j, image in enumerate(columns)})
    framed = set(cells)
    cells.update({(1 + i, 1 + j): images[i, j] for i, j in np.ndindex(images.shape[:2])})
    part = " + ".join(names)
    return Sheet(
        cells,
        framed,
        row_gaps={1},
        column_gaps={1},
        row_labels=["", *row_labels] if row_labels else (),
        column_labels=["", *column_labels] if column_labels else (),
        row_title="the rest of",
        column_title=f"{part} of",
    ).draw(f"Part{'s' * (len(names) > 1)} {part} of the column, the rest of the row")


@torch.no_grad()
def interpolations(
    factorization: Factorization,
    x: Float[Tensor, " batch *event"],
    other: Float[Tensor, " others *shape"],
    names: str | Sequence[str],
    n: int = 7,
) -> "matplotlib.figure.Figure":
    r"""Straight lines within single parts, from one input to another; the rest stays.

    .. math:: \mathrm{decode}(z(x) \text{ with } (1 - t)\, z_F(x) + t\, z_F(x')),
        \quad t \in [0, 1]

    A row is a part of a pair: the start, framed, the line, and what its end took the part from,
    framed. Rows of one pair stand together.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Images of shape (batch, channels, height, width), where the lines begin.
        other: As many, which the parts move to.
        names: The parts, one row each.
        n: Images of a line, ends among them, at least 2.

    Raises:
        ValueError: If ``n`` is less than 2, the two batches are no images of one shape, or there
            is no such part.
    """
    names = listed(names)
    starts, ends = _both(x, other, equal=True)
    lines = [interpolate_part(factorization, x, other, name, n) for name in names]
    sheet = _rows_by_input(starts, lines, names)
    for row, column in sheet.framed.copy():
        sheet.cells[row, n + 1] = ends[row // len(names)]
        sheet.framed.add((row, column + n + 1))
    sheet.column_gaps.add(n + 1)
    shares = [f"{share:.2g}" for share in torch.linspace(0, 1, n).tolist()]
    sheet.column_labels = ["start", *shares, "end"]
    return sheet.draw("One part on a straight line to that of the end, the rest of the start")


@torch.no_grad()
def resampled_parts(
    factorization: Factorization,
    x: Float[Tensor, " batch *event"],
    names: str | Sequence[str],
    n: int = 8,
    generator: torch.Generator | None = None,
) -> "matplotlib.figure.Figure":
    r"""Each input, framed, beside versions of it with one part drawn anew: one row a part.

    .. math:: \mathrm{decode}(z(x) \text{ with } z_F = v_j), \quad v_j \sim p(z_F), \quad j = 1..n

    What changes along a row is what the part says; rows of one input stand together. Draws are
    those of :func:`svae.factorization.sample_part`: without a density of the class, its draws are
    the class codes of the other inputs, so give several.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Images of shape (batch, channels, height, width).
        names: The parts, one row each.
        n: Draws of each, at least 1.
        generator: Source of the draws, for a repeatable picture.

    Raises:
        ValueError: If ``n`` is less than 1, ``x`` or what is decoded are no images, or there is
            no such part.
    """
    names = listed(names)
    starts = pixels(x, BATCH)
    draws = [resample_part(factorization, x, name, n, generator) for name in names]
    sheet = _rows_by_input(starts, draws, names)
    sheet.column_labels = ["input", *map(str, range(1, n + 1))]
    sheet.column_title = "the part of the row, drawn anew"
    return sheet.draw("One part drawn anew, the rest of the input")


def linearisation(
    lines: Lines,
    confidence: Float[Tensor | np.ndarray, "way n batch"] | None = None,
    realism: Float[Tensor | np.ndarray, "way n batch"] | None = None,
) -> "matplotlib.figure.Figure":
    """The way between two inputs twice: straight in the latent, and in the representation.

    Two rows of images for each pair and, where they are given, curves along both ways beside them.

    Args:
        lines: What :func:`svae.editing.linearisation` gives for one pair or several.
        confidence: A judge's confidence in [0, 1], of shape (2, n, batch): first along the lines
            in the latent, then along those in the representation.
        realism: How likely the images are to be real, on any scale, in the same shape.

    Raises:
        ValueError: If the lines are no images of one shape, or curves have another shape.
    """
    dims = ("n", *BATCH)
    both = [pixels(line, dims) for line in lines]
    if both[0].shape != both[1].shape:
        raise ValueError(
            f"both lines must have one shape, got {tuple(lines.latent.shape)} and "
            f"{tuple(lines.representation.shape)}. Pass what svae.editing.linearisation gives."
        )
    n, batch = both[0].shape[:2]
    curves = {}
    for name, values in (("confidence", confidence), ("realism", realism)):
        if values is None:
            continue
        if tuple(values.shape) != (2, n, batch):
            raise ValueError(
                f"{name} must have the shape (2, {n}, {batch}): ways, points, pairs, got "
                f"{tuple(values.shape)}. Stack that of lines.latent and of lines.representation."
            )
        curves[name] = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    cells = {
        (2 * pair + way, j): both[way][j, pair]
        for pair, way, j in np.ndindex(batch, 2, n)  # in the order of rows
    }
    figure = Sheet(
        cells,
        row_gaps=set(range(2, 2 * batch, 2)),
        row_labels=["latent", "representation"] * batch,
        column_labels=[f"{share:.2g}" for share in np.linspace(0, 1, n)],
    ).draw("Straight in the latent, straight in the representation")
    if curves:
        _draw_beside(figure, curves, n)
    return figure


def _draw_beside(
    figure: "matplotlib.figure.Figure", curves: Mapping[str, np.ndarray], n: int
) -> None:
    """Widens a sheet of line after line and draws the curves of each pair right of its images."""
    sheet = figure.axes[0]
    width, height = (round(float(side) * DPI) for side in figure.get_size_inches())
    total = width + len(curves) * (BEFORE + PANEL + AFTER), height + BELOW
    figure.set_size_inches(total[0] / DPI, total[1] / DPI)
    sheet.set_position((0, BELOW / total[1], width / total[0], height / total[1]))
    top = sheet.get_ylim()[1]
    shares = np.linspace(0, 1, n)
    n_pairs = next(iter(curves.values())).shape[2]
    panels = []
    for column, (name, values) in enumerate(curves.items()):
        low, high = (0.0, 1.0) if name == "confidence" else (values.min(), values.max())
        margin = 0.08 * (high - low) or 0.5
        left = width + column * (BEFORE + PANEL + AFTER) + BEFORE
        for pair in range(n_pairs):
            start = sheet.images[2 * pair * n].get_extent()[3] - top
            end = sheet.images[(2 * pair + 1) * n].get_extent()[2] - top
            corner = left / total[0], 1 - end / total[1]
            axes = figure.add_axes((*corner, PANEL / total[0], (end - start) / total[1]))
            for way, style in enumerate(("-", "--")):
                axes.plot(
                    shares,
                    values[way, :, pair],
                    style,
                    color=PALETTE[way],
                    marker="o",
                    markersize=3,
                    label=("latent", "representation")[way],
                )
            axes.set(xlim=(-0.04, 1.04), ylim=(low - margin, high + margin), xticks=[0, 0.5, 1])
            axes.locator_params(axis="y", nbins=3)
            axes.tick_params(labelsize=7, labelbottom=pair == n_pairs - 1)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if pair == 0:
                axes.set_title(name, fontsize=HEADING)
            panels.append(axes)
        panels[-1].set_xlabel("share of the way", fontsize=LABEL)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="lower right",
        bbox_to_anchor=(1 - AFTER / 2 / total[0], 8 / total[1]),
        ncols=2,
        fontsize=LABEL,
        frameon=False,
        borderaxespad=0.0,
    )


def _rows_by_input(starts: np.ndarray, versions: Sequence[Tensor], names: Sequence[str]) -> Sheet:
    """A row for each part of each input: the input, framed, then versions ``(n, batch, ...)``."""
    images = [pixels(version, ("n", *BATCH)) for version in versions]
    cells: dict[tuple[int, int], np.ndarray] = {}
    for row in range(len(starts) * len(names)):
        i, k = divmod(row, len(names))
        cells[row, 0] = starts[i]
        cells.update({(row, 1 + j): image[i] for j, image in enumerate(images[k])})
    return Sheet(
        cells,
        framed={(row, 0) for row, column in cells if column == 0},
        row_gaps={i * len(names) for i in range(1, len(starts))},
        column_gaps={1},
        row_labels=[*names] * len(starts),
    )


def _both(x: Tensor, other: Tensor, equal: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of images of one shape, and of one length where they must be ``equal``."""
    both = pixels(x, BATCH), pixels(other, BATCH)
    if x.shape[1:] != other.shape[1:] or (equal and len(x) != len(other)):
        raise ValueError(
            f"x and other must have the same shape{'' if equal else ' but for their number'}, got "
            f"{tuple(x.shape)} and {tuple(other.shape)}. Use other.expand_as(x) to give one to "
            "all."
        )
    return both


def listed(names: str | Sequence[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(
            "names must hold at least one part, got none. svae.factorization.parts(factorization) "
            "lists them."
        )
    return names

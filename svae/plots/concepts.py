"""Parts of a latent in pictures: exchanged, moved, drawn anew, walked in and asked about."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.editing import (
    Lines,
    Response,
    interpolate_part,
    resample_part,
    transfer_grid,
    walk_part,
)
from svae.factorization import Factorization
from svae.latent import Latent
from svae.plots.canvas import DPI, HEADING, LABEL, Sheet, pixels
from svae.plots.embeddings import (
    MAX_POINTS,
    PALETTE,
    add_class_legend,
    check_codes,
    check_labels,
    reduced,
    scatter_classes,
    subsample,
)

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "concept_axes",
    "interpolations",
    "linearisation",
    "resampled_parts",
    "responses",
    "transfer",
    "walk",
]

BATCH = ("batch", "channels", "height", "width")
CHUNK = 1000  # latents represented at a time
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
    names, other = _listed(name), x if other is None else other
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
    names = _listed(names)
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
    names = _listed(names)
    starts = pixels(x, BATCH)
    draws = [resample_part(factorization, x, name, n, generator) for name in names]
    sheet = _rows_by_input(starts, draws, names)
    sheet.column_labels = ["input", *map(str, range(1, n + 1))]
    sheet.column_title = "the part of the row, drawn anew"
    return sheet.draw("One part drawn anew, the rest of the input")


@torch.no_grad()
def walk(
    factorization: Factorization,
    x: Float[Tensor, " batch *event"],
    represent: Callable[[Latent], Tensor],
    names: str | Sequence[str],
    background: Float[Tensor, " n *features"],
    y: Int[Tensor, " labels"],
    class_names: Sequence[str],
    n_steps: int = 50,
    generator: torch.Generator | None = None,
    seed: int = 0,
) -> "matplotlib.figure.Figure":
    r"""Random walks of single parts, seen in the representation among those of other inputs.

    .. math:: r_s = \mathrm{represent}(z(x) \text{ with } z_{F, s}), \quad s = 0..S

    One panel for each part. All walks and the background are embedded together, so a point means
    the same in every panel: a walk of the class should cross the clouds of the classes, any other
    should stay within its own. Steps grow darker from the start, white, to the end, black.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Where the walks begin, a few inputs.
        represent: From a latent to the representation, as a bridge's ``to_representation``.
        names: The parts, one panel each.
        background: Representations of other inputs, at most 3000 of which are drawn.
        y: Class of each of them.
        class_names: Names of the classes.
        n_steps: Steps of a walk, at least 1.
        generator: Source of the steps, for a repeatable picture.
        seed: Of the embedding and of the choice among the background.

    Raises:
        ValueError: If background and labels differ in number, ``represent`` gives another number
            of features than the background has, a label is not in 0..K-1, ``n_steps`` is less
            than 1, or a part is unknown or has no stationary walk.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    names = _listed(names)
    check_codes({"background": background}, y)
    check_labels(y, len(class_names))
    chosen = subsample(len(y), seed)
    cloud = background[chosen.to(background.device)].float().cpu().flatten(1)
    labels = y.cpu()[chosen].numpy()
    paths = []
    for name in names:
        latent = walk_part(factorization, x, name, n_steps, generator=generator)
        path = _represented(represent, latent.map(lambda z: z.flatten(0, 1)))
        if path.shape[1] != cloud.shape[1]:
            raise ValueError(
                f"represent gives {path.shape[1]} features, the background has {cloud.shape[1]}. "
                "Pass representations as the background, such as frozen.representation(x)."
            )
        paths.append(path)
    points, method = reduced(torch.cat([cloud, *paths]), seed)
    cloud, *walks = (part.numpy() for part in points.split([len(cloud), *map(len, paths)]))

    n_columns = min(len(names), 3)
    n_rows = -(-len(names) // n_columns)
    size = (4.0 * n_columns + 1.4, 4.2 * n_rows + 0.7)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    shades = LinearSegmentedColormap.from_list("steps", ["0.8", "0.0"])
    dot = float(np.clip(12000 / len(labels), 5, 30))
    for i, (name, flat) in enumerate(zip(names, walks, strict=True)):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        scatter_classes(axes, cloud, labels, dot, alpha=0.35)
        for path in flat.reshape(n_steps + 1, -1, 2).swapaxes(0, 1):
            lines = LineCollection(
                list(np.stack([path[:-1], path[1:]], 1)), cmap=shades, linewidths=1.0, zorder=3
            )
            lines.set_array(np.arange(1, n_steps + 1))
            lines.set_clim(0, n_steps)
            axes.add_collection(lines)
            for end, color in ((path[0], "white"), (path[-1], "black")):
                axes.plot(*end, "o", color=color, markeredgecolor="black", markersize=6, zorder=4)
        axes.set_title(f"{name} ({method})", parse_math=False)
        axes.set(xticks=[], yticks=[], box_aspect=1)
    bar = figure.colorbar(
        axes.collections[-1], ax=figure.axes, location="bottom", shrink=0.4, aspect=40, pad=0.02
    )
    bar.set_label("step of the walk, from ○ to ●")
    bar.set_ticks([0, n_steps])
    add_class_legend(figure, class_names)
    return figure


def responses(
    results: Mapping[str, Response], class_names: Sequence[str]
) -> "matplotlib.figure.Figure":
    """What the model answers when one part is drawn anew: bars, one panel for each part.

    A bar is the share of an answer, the mean over the inputs where there are several. The title
    gives the means of :class:`svae.editing.Response`: entropy in [0, 1], the spread of the
    answer's number, and the share of answers that are those of the input. A part that the
    model does not need keeps them all.

    Args:
        results: Responses by the part that was drawn anew.
        class_names: Names of the answers.

    Raises:
        ValueError: If there are no responses, or one is to another number of answers.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    k = len(class_names)
    shapes = {name: tuple(result.histogram.shape) for name, result in results.items()}
    if not shapes or any(len(shape) != 2 or shape[1] != k for shape in shapes.values()):
        raise ValueError(
            f"every histogram must have the shape (batch, {k}), as there are {k} class names, got "
            f"{shapes}. Pass what svae.editing.response gives, by the name of its part."
        )
    shares = [result.histogram.float().mean(0).cpu().numpy() for result in results.values()]
    top = min(1.02, 1.1 * float(np.max(shares)))  # one scale for all panels
    n_columns = min(len(results), 4 if k <= 12 else 2)
    n_rows = -(-len(results) // n_columns)
    longest = max(map(len, class_names))
    width = max(2.9, min(0.24 * k + 0.6, 9.0))
    height = 2.5 + (0.07 * longest if longest > 2 else 0)
    figure = Figure(
        figsize=(width * n_columns + 0.5, height * n_rows + 0.3), dpi=110, layout="constrained"
    )
    every = range(0, k, -(-k // 40))  # names of hundreds of classes would cover each other
    for i, (name, result) in enumerate(results.items()):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        axes.bar(
            range(k),
            shares[i],
            color=[PALETTE[j % len(PALETTE)] for j in range(k)],
        )
        entropy, spread, kept = (float(value.float().mean()) for value in result[1:])
        axes.set_title(
            f"{name}\nentropy {entropy:.2f}   spread {spread:.2f}   kept {kept:.0%}",
            fontsize=8.5,
            parse_math=False,
        )
        axes.set_xticks(list(every), [class_names[j] for j in every], fontsize=8)
        for label in axes.get_xticklabels():
            label.set_parse_math(False)
            if longest > 2:
                label.set(rotation=45, ha="right", rotation_mode="anchor")
        axes.set(xlim=(-0.7, k - 0.3), ylim=(0, top))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if i % n_columns == 0:
            axes.set_ylabel("share of answers")
    counts = sorted({shape[0] for shape in shapes.values()})
    inputs = "" if counts == [1] else f" (mean of {' or '.join(map(str, counts))} inputs)"
    figure.suptitle(f"Answers when one part is drawn anew{inputs}", fontsize=11)
    return figure


def concept_axes(
    codes_by_name: Mapping[str, Float[Tensor, " n ..."]],
    y: Int[Tensor, " labels"],
    class_names: Sequence[str],
    seed: int = 0,
    max_points: int = MAX_POINTS,
) -> "matplotlib.figure.Figure":
    """The codes of every part on one line each, with a row of points for each class.

    A part that holds the class puts each row in a place of its own; in a part that does not, all
    rows cover the same stretch.

    Args:
        codes_by_name: Codes by the name of their part, as :func:`svae.editing.codes` gives them.
        y: Class of every code.
        class_names: Names of the classes.
        seed: Of the embedding, and of the subsample where there are more than ``max_points``.
        max_points: Most points drawn, the same ones in all strips.

    Raises:
        ValueError: If there is nothing to draw, numbers of codes and labels differ, codes are
            not finite, or a label is not in 0..K-1.
    """
    from matplotlib.figure import Figure

    check_codes(codes_by_name, y)
    k = len(class_names)
    check_labels(y, k)
    chosen = subsample(len(y), seed, max_points)
    labels = y.cpu()[chosen]
    jitter = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) - 0.5
    height = labels + 0.7 * jitter
    strip = float(np.clip(0.2 * k, 0.9, 4.0)) + 0.45
    n = len(codes_by_name)
    figure = Figure(figsize=(7.5, strip * n + 0.4), dpi=110, layout="constrained")
    every = range(0, k, -(-k // 24))
    size = float(np.clip(6000 / len(labels), 4, 20))
    for i, (name, codes) in enumerate(codes_by_name.items()):
        line, method = reduced(codes[chosen.to(codes.device)], seed, n_dims=1)
        axes = figure.add_subplot(n, 1, i + 1)
        points = torch.cat([line, height.unsqueeze(1)], 1).numpy()
        scatter_classes(axes, points, labels.numpy(), size, alpha=0.6)
        axes.set_title(f"{name} ({method})", parse_math=False, fontsize=10)
        axes.set_yticks(list(every), [class_names[j] for j in every], fontsize=8)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        axes.set(xticks=[], ylim=(k - 0.4, -0.6), ylabel="class")
        axes.set_yticks(np.arange(k - 1) + 0.5, minor=True)  # a thin line between two classes
        axes.grid(which="minor", axis="y", color="0.9", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    figure.axes[-1].set_xlabel("place on the line")
    return figure


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


def _listed(names: str | Sequence[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(
            "names must hold at least one part, got none. svae.factorization.parts(factorization) "
            "lists them."
        )
    return names


def _represented(
    represent: Callable[[Latent], Tensor], latent: Latent
) -> Float[Tensor, "n features"]:
    rows = torch.arange(len(latent.z_class), device=latent.z_class.device).split(CHUNK)
    found = [represent(latent.map(lambda z, r=r: z[r])) for r in rows]
    return torch.cat(found).float().cpu().flatten(1)

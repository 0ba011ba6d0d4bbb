"""Parts of a latent as charts: walked in, asked about, and on one line each."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.editing import (
    Response,
    walk_part,
)
from svae.factorization import Factorization
from svae.latent import Latent
from svae.plots.concepts.sheets import listed
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

__all__ = ["concept_axes", "responses", "walk"]
CHUNK = 1000  # latents represented at a time


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

    names = listed(names)
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


def _represented(
    represent: Callable[[Latent], Tensor], latent: Latent
) -> Float[Tensor, "n features"]:
    rows = torch.arange(len(latent.z_class), device=latent.z_class.device).split(CHUNK)
    found = [represent(latent.map(lambda z, r=r: z[r])) for r in rows]
    return torch.cat(found).float().cpu().flatten(1)

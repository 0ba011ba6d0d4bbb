"""Codes on a line or in the plane, coloured by class."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["embed", "embedding"]

NEIGHBORS = 15  # UMAP's neighbourhood; fewer points than that have no neighbourhoods to keep
MAX_POINTS = 3000
# Told apart under the usual kinds of colour blindness: seaborn's "colorblind".
PALETTE = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc",
    "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
)  # fmt: skip
MARKERS = "o^sDvP*X"  # one more marker for every ten classes

log = logging.getLogger("svae")


def embed(
    codes: Float[Tensor, " n *features"], seed: int = 0, n_dims: int = 2
) -> Float[Tensor, "n {n_dims}"]:
    """Maps codes to the plane, or a line, with UMAP, or with PCA where UMAP cannot work.

    PCA, said in a line of the log, steps in for fewer than 15 codes, codes that are all equal,
    and where umap-learn is missing or fails.

    References:
        UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction
        (McInnes et al., 2018), https://arxiv.org/abs/1802.03426

    Args:
        codes: One code for each point; feature maps are flattened.
        seed: Makes the embedding repeatable.
        n_dims: Dims to map to: 2 for the plane, 1 for a line.

    Raises:
        ValueError: If there are no codes, some are not finite, or ``n_dims`` is neither 1 nor 2.
    """
    return reduced(codes, seed, n_dims)[0]


def embedding(
    codes_by_name: Mapping[str, Float[Tensor, " n ..."]],
    y: Int[Tensor, " labels"],
    class_names: Sequence[str],
    seed: int = 0,
    max_points: int = MAX_POINTS,
) -> "matplotlib.figure.Figure":
    """Scatters codes side by side, each embedded for itself, coloured by class.

    Where ``z_class`` falls into one cloud for each class, ``z_nuisance`` should mix all colours.

    Args:
        codes_by_name: Codes by the title of their panel, such as ``{"z_class": ...}``.
        y: Class of every code.
        class_names: Names of the classes.
        seed: Of the embedding, and of the subsample where there are more than ``max_points``.
        max_points: Most points drawn, the same ones in all panels.

    Raises:
        ValueError: If there is nothing to draw, numbers of codes and labels differ, codes are
            not finite, or a label is not in 0..K-1.
    """
    from matplotlib.figure import Figure

    check_codes(codes_by_name, y)
    check_labels(y, len(class_names))
    chosen = subsample(len(y), seed, max_points)
    labels = y.cpu()[chosen].numpy()
    n_panels = len(codes_by_name)
    figure = Figure(figsize=(4.2 * n_panels + 1.4, 4.4), dpi=110, layout="constrained")
    size = float(np.clip(12000 / len(labels), 5, 30))
    for i, (name, codes) in enumerate(codes_by_name.items()):
        points, method = reduced(codes[chosen.to(codes.device)], seed)
        axes = figure.add_subplot(1, n_panels, i + 1)
        scatter_classes(axes, points.numpy(), labels, size, alpha=0.75)
        axes.set_title(f"{name} ({method})", parse_math=False)
        axes.set(xticks=[], yticks=[], box_aspect=1)
    add_class_legend(figure, class_names)
    return figure


def subsample(n: int, seed: int, max_points: int = MAX_POINTS) -> Int[Tensor, " chosen"]:
    """Indices of at most ``max_points`` of ``n`` examples.

    Their order is random, or else the class drawn last would cover the others.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:max_points]


def scatter_classes(
    axes: "matplotlib.axes.Axes",
    points: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, " n"],
    size: float,
    alpha: float,
) -> None:
    """Scatters points in the colour of their class, and its marker beyond ten classes."""
    for decade in np.unique(labels // len(PALETTE)):
        inside = labels // len(PALETTE) == decade
        axes.scatter(
            *points[inside].T,
            c=[PALETTE[k % len(PALETTE)] for k in labels[inside]],
            marker=MARKERS[decade % len(MARKERS)],
            s=size,
            linewidths=0,
            alpha=alpha,
        )


def add_class_legend(figure: "matplotlib.figure.Figure", class_names: Sequence[str]) -> None:
    """Writes the colour and marker of every class to the right of the figure's panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=MARKERS[k // len(PALETTE) % len(MARKERS)],
            color=PALETTE[k % len(PALETTE)],
        )
        for k in range(len(class_names))
    ]
    legend = figure.legend(
        handles,
        list(class_names),
        loc="outside right center",
        title="class",
        ncols=-(-len(class_names) // 16),
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def check_codes(
    codes_by_name: Mapping[str, Float[Tensor, " n ..."]], y: Int[Tensor, " labels"]
) -> None:
    """Raises a ``ValueError`` unless there are codes, one for each label."""
    lengths = {name: len(codes) for name, codes in codes_by_name.items()}
    if not lengths or set(lengths.values()) != {len(y)}:
        raise ValueError(
            f"an embedding needs one code for each of the {len(y)} labels, got {lengths}. "
            "Do codes and labels come from the same examples?"
        )


def check_labels(y: Int[Tensor, " n"], n_classes: int) -> None:
    """Raises a ``ValueError`` unless there are labels and all lie in 0..K-1."""
    if len(y) == 0 or int(y.min()) < 0 or int(y.max()) >= n_classes:
        found = f"{int(y.min())}..{int(y.max())}" if len(y) else "none"
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1}, as there are {n_classes} class names, got "
            f"{found}. Give one name for each class, and leave out unlabelled examples."
        )


def reduced(codes: Tensor, seed: int, n_dims: int = 2) -> tuple[Float[Tensor, "n dims"], str]:
    """What :func:`embed` gives, and the method that gave it: ``"UMAP"`` or ``"PCA"``."""
    if n_dims not in (1, 2):
        raise ValueError(f"n_dims must be 1, a line, or 2, the plane, got {n_dims}")
    flat = codes.detach().float().cpu().flatten(1) if codes.ndim > 1 else codes
    if flat.ndim < 2 or flat.numel() == 0 or not bool(flat.isfinite().all()):
        raise ValueError(
            "codes must be finite and of the shape (n, features) with at least one of each, got "
            f"the shape {tuple(codes.shape)}. Check for NaN, and add a missing dim."
        )
    if len(flat) < NEIGHBORS:
        why = f"{len(flat)} points are fewer than the {NEIGHBORS} neighbours of UMAP"
    elif bool((flat == flat[0]).all()):
        why = "all codes are equal"
    else:
        try:
            return _umap(flat, seed, n_dims), "UMAP"
        except ImportError as error:
            why = f"umap-learn cannot be imported ({error})"
        except (ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
            why = f"UMAP failed ({type(error).__name__}: {error})"
    log.info("embedding by PCA instead of UMAP: %s", why)
    return _pca(flat, n_dims), "PCA"


def _umap(codes: Float[Tensor, "n features"], seed: int, n_dims: int) -> Float[Tensor, "n dims"]:
    # numba gives the OpenMP threads that it shares with torch every core of the machine, for good:
    # of two processes with a core each, both then wait for each other, thirty times as slow.
    n_threads = torch.get_num_threads()
    try:
        return _fitted_umap(codes, seed, n_dims)
    finally:
        torch.set_num_threads(n_threads)


def _fitted_umap(
    codes: Float[Tensor, "n features"], seed: int, n_dims: int
) -> Float[Tensor, "n dims"]:
    with warnings.catch_warnings():
        # umap-learn announces at each import that its network variant lacks TensorFlow.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP

    # One thread is what a seed allows, and saying so keeps UMAP from warning about it. PCA as the
    # start keeps the coarse layout, and needs no eigensolver, which well separated classes break.
    points = UMAP(
        n_components=n_dims,
        n_neighbors=min(NEIGHBORS, len(codes) - 1),
        init="pca" if codes.shape[1] >= n_dims else "random",
        random_state=seed,
        n_jobs=1,
        n_epochs=200,  # UMAP's own choice for large sets; it takes 500 for small ones
    ).fit_transform(codes.numpy())
    return torch.as_tensor(np.asarray(points), dtype=torch.float32)


def _pca(codes: Float[Tensor, "n features"], n_dims: int) -> Float[Tensor, "n dims"]:
    centered = codes - codes.mean(0)
    _, _, directions = torch.linalg.svd(centered, full_matrices=False)
    points = centered @ directions[:n_dims].T
    return torch.nn.functional.pad(points, (0, n_dims - points.shape[1]))

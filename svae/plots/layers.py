"""What the layers of a network ignore: drawn inputs, and the story from input to logits."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svae.factorization import Factorization, reconstruct, resample_nuisance
from svae.plots.canvas import Sheet, pixels
from svae.plots.grids import BATCH

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    from svae.metrics import Estimate
    from svae.profiling import LayerProfile

__all__ = ["layer_invariances", "layer_shares", "perturbed", "profile"]


@torch.no_grad()
def layer_invariances(
    bridges: Mapping[str, Factorization],
    x: Float[Tensor, "batch *event"],
    n: int = 8,
    seed: int = 0,
) -> "matplotlib.figure.Figure":
    """Inputs that each layer cannot tell from a real one: a row for each layer of each input.

    All layers of one input are shown with the same noise, so that what changes from row to row is
    what the layers know.

    Args:
        bridges: A factorization by the name of its layer, from input to logits.
        x: A few images of shape (batch, channels, height, width).
        n: Draws in a row.
        seed: Of the draws.

    Raises:
        ValueError: If there are no layers, ``n`` is less than 1, or ``x`` are no images.
    """
    if not bridges:
        raise ValueError("there are no layers to show: pass {name: bridge}")
    originals = pixels(x, BATCH)
    names = list(bridges)
    first = next(iter(bridges.values()))
    own = pixels(reconstruct(first, x), BATCH)
    cells: dict[tuple[int, int], np.ndarray] = {}
    for k, bridge in enumerate(bridges.values()):
        generator = torch.Generator().manual_seed(seed)
        drawn = pixels(resample_nuisance(bridge, x, n, generator), ("n", *BATCH))
        for i in range(len(originals)):
            row = i * len(names) + k
            cells[row, 0], cells[row, 1] = originals[i], own[i]
            cells.update({(row, 2 + j): drawn[j, i] for j in range(n)})
    return Sheet(
        cells,
        framed={(row, 0) for row in range(len(originals) * len(names))},
        row_gaps={i * len(names) for i in range(1, len(originals))},
        column_gaps={1, 2},
        row_labels=names * len(originals),
        column_labels=["input", "decoded", *map(str, range(1, n + 1))],
        column_title="what the layer cannot tell from the input",
    ).draw("Invariances of each layer")


@torch.no_grad()
def perturbed(
    bridges: Mapping[str, Factorization],
    versions: Mapping[str, Float[Tensor, "one *event"]],
    read: Callable[[Tensor], Tensor],
    class_names: Sequence[str],
    n: int = 4,
    seed: int = 0,
) -> "matplotlib.figure.Figure":
    """What each layer shows of an input and of changed versions of it, such as attacked ones.

    A row for each layer; for each version the input, framed, and draws that the layer cannot tell
    from it. The label says as what most draws of each version are read, in their order. A change
    that the network withstands fades from layer to layer; an attack takes over.

    Args:
        bridges: A factorization by the name of its layer, from input to logits.
        versions: One input each, by name: clean, attacked, with noise of the same size.
        read: Inputs to logits: a judge that had no part in any of it.
        class_names: Names of what the judge reads.
        n: Draws of each version.
        seed: Of the draws, which are the same for all.

    Raises:
        ValueError: If there are no layers or versions, or a version is no single image.
    """
    if not bridges or not versions:
        raise ValueError("there is nothing to show: pass {layer: bridge} and {name: input}")
    if any(len(x) != 1 for x in versions.values()):
        raise ValueError("a version is one image of shape (1, channels, height, width)")
    cells: dict[tuple[int, int], np.ndarray] = {}
    framed: set[tuple[int, int]] = set()
    row_labels, column_labels = [], []
    for row, (layer, bridge) in enumerate(bridges.items()):
        readings = []
        for k, x in enumerate(versions.values()):
            generator = torch.Generator().manual_seed(seed)
            drawn = resample_nuisance(bridge, x, n, generator)[:, 0]
            readings.append(class_names[int(read(drawn).softmax(-1).mean(0).argmax())])
            column = k * (n + 1)
            cells[row, column] = pixels(x, BATCH)[0]
            framed.add((row, column))
            cells.update(
                {(row, column + 1 + j): one for j, one in enumerate(pixels(drawn, BATCH))}
            )
        row_labels.append(f"{layer}: {', '.join(readings)}")
    for name, x in versions.items():
        column_labels += [f"{name}: {class_names[int(read(x).argmax())]}", *[""] * n]
    return Sheet(
        cells,
        framed=framed,
        column_gaps={k * (n + 1) for k in range(1, len(versions))},
        row_labels=row_labels,
        column_labels=column_labels,
    ).draw("What each layer shows of a changed input, as a judge reads it")


def profile(found: "LayerProfile") -> "matplotlib.figure.Figure":
    """What each layer still knows and what it ignores, from input to logits.

    Three panels: the share of answers that draws keep, beside that of plain reconstructions; what
    the layer knows of the code, in nats, and the share of the code's variance that it leaves open;
    how far draws are from the fibre, beside the nearest real input. Bars are 95 % intervals.

    Args:
        found: What :func:`svae.profiling.layer_profile` gives.
    """
    from matplotlib.ticker import PercentFormatter

    layers = found.layers
    places = np.arange(len(layers))
    figure = _figure(layers, 8.0)
    axes = figure.subplots(3, 1, sharex=True)

    def line(panel: int, name: str, label: str, color: str, style: str = "o-") -> None:
        values = [found.rows[layer][name] for layer in layers]
        _line(axes[panel], values, label, color, style)

    line(0, "kept", "draws", "C0")
    axes[0].axhline(
        found.reconstructed.value, color="0.4", linestyle="--", label="plain reconstructions"
    )
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes[0].set_ylabel("answers kept")
    line(1, "variance_explained", "variance of the code left open", "C3")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[1].set_ylabel("left open", color="C3")
    axes[1].set_ylim(bottom=0)
    nats = axes[1].twinx()
    values = [found.rows[layer]["information"].value for layer in layers]
    nats.plot(places, values, "s--", color="C2", label="known of the code")
    nats.set_ylabel("known, nats", color="C2")
    nats.set_ylim(bottom=0)
    line(2, "fibre_loss", "draws", "C0")
    line(2, "fibre_loss_reconstructed", "plain reconstructions", "0.4", "o--")
    line(2, "fibre_loss_nearest", "nearest real input", "C1", "o:")
    axes[2].set_ylabel("fibre loss")
    axes[2].set_ylim(bottom=0)
    for panel in (axes[0], axes[2]):
        panel.legend(fontsize=8, frameon=False)
    for panel in axes:
        panel.grid(axis="y", alpha=0.3)
        panel.spines["top"].set_visible(False)
    nats.spines["top"].set_visible(False)
    _name_layers(axes[2], layers)
    figure.suptitle("What each layer knows, and what it ignores", fontsize=11)
    return figure


def layer_shares(shares: Mapping[str, Mapping[str, "Estimate"]]) -> "matplotlib.figure.Figure":
    """What names the invariances: how much of each concept the layers fix, from input to logits.

    A line falls to zero where its concept is let go. Bars are 95 % intervals.

    Args:
        shares: By layer, from input to logits, what :func:`svae.fibres.concept_shares` gives.

    Raises:
        ValueError: If there are no layers, or they have different concepts.
    """
    from matplotlib.ticker import PercentFormatter

    layers = list(shares)
    kinds = {tuple(shares[layer]) for layer in layers}
    if len(kinds) != 1:
        raise ValueError(
            f"expected the same concepts at one or more layers, got {sorted(kinds) or 'no layers'}"
        )
    figure = _figure(layers, 3.6)
    axes = figure.subplots()
    for k, concept in enumerate(kinds.pop()):
        _line(axes, [shares[layer][concept] for layer in layers], concept, f"C{k}")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("fixed by the layer")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _name_layers(axes, layers)
    figure.suptitle("Which concepts each layer still fixes", fontsize=11)
    return figure


def _figure(layers: Sequence[str], height: float) -> "matplotlib.figure.Figure":
    """As wide as the layers need."""
    from matplotlib.figure import Figure

    width = max(5.0, 0.9 * len(layers) + 2.5)
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _line(
    axes: "matplotlib.axes.Axes",
    values: "Sequence[Estimate]",
    label: str,
    color: str,
    style: str = "o-",
) -> None:
    """A point with its interval for each layer."""
    middle = np.array([one.value for one in values])
    ends = np.array(
        [[one.value - one.low for one in values], [one.high - one.value for one in values]]
    )
    places = range(len(values))
    axes.errorbar(places, middle, ends.clip(min=0), fmt=style, color=color, label=label, capsize=2)


def _name_layers(axes: "matplotlib.axes.Axes", layers: Sequence[str]) -> None:
    longest = max(map(len, layers))
    axes.set_xticks(
        range(len(layers)),
        layers,
        rotation=45 if longest > 8 else 0,
        ha="right" if longest > 8 else "center",
    )
    axes.set_xlabel("layer, from input to logits")

"""How a training went, and which classes it confuses."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from svae.plots.embeddings import PALETTE, check_labels

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["confusion", "training_curves"]

STAGES = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
STYLES: dict[str, Literal["-", "--"]] = {"training": "-", "validation": "--"}
FILLS = {"training": None, "validation": "white"}  # a single epoch has no line to tell them by


class Panel(NamedTuple):
    """What one panel shows: the quantities whose name the pattern matches."""

    title: str
    pattern: re.Pattern[str]


# The first pattern that matches a quantity decides; a group, where there is one, names the block.
PANELS = (
    Panel("loss (nats)", re.compile(r"(?:total_)?loss|objective")),
    Panel("distortion (nats)", re.compile(r"distortion|reconstruction")),
    Panel("rate (nats)", re.compile(r"(?:rate|kl)(?:_(.+))?")),
    Panel("label loss (nats)", re.compile(r"label(?:_loss)?|cross_entropy|nll")),
    Panel("accuracy", re.compile(r"acc(?:uracy)?")),
    Panel("flow loss (nats)", re.compile(r"flow(?:_loss)?")),
    Panel("active units", re.compile(r"active(?:_units)?(?:_(.+))?")),
)

History = Mapping[str, Sequence[float | int | None]]


class Series(NamedTuple):
    """One line: a quantity of one stage, by epoch."""

    panel: int
    block: str
    stage: str
    epochs: list[int]
    values: list[float]


def training_curves(history: str | Path | History) -> "matplotlib.figure.Figure":
    """Draws losses, distortion, rates, accuracy and active units over the epochs.

    Columns are found by name: a stage (``train``, ``val``, ``valid``, ``validation``; none means
    training), a quantity such as ``loss``, ``rate_style`` or ``active_units_z_class``, and
    ``step`` or ``epoch``, joined by ``_``, ``/`` or ``.``. What is logged by step is
    averaged over its epoch, other columns are left out, and so are panels without a column.

    Args:
        history: Path of a ``metrics.csv`` of Lightning's ``CSVLogger``, or its columns as a
            mapping of lists, which may hold None or NaN where nothing was logged. A column
            ``epoch`` counts from 0; without it every entry is an epoch.

    Raises:
        ValueError: If no column is one of these quantities.
        OSError: If the file cannot be read.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    columns = read_csv(history) if isinstance(history, str | Path) else history
    lines = _series(columns)
    if not lines:
        raise ValueError(
            "the history has none of loss, distortion, rate, label_loss, accuracy and "
            f"active_units, got the columns {sorted(columns)}. Was the training logged with "
            "a CSVLogger, and did it reach the end of an epoch?"
        )
    shown = sorted({line.panel for line in lines})
    n_columns = min(len(shown), 3 if len(shown) <= 6 else 4)
    n_rows = -(-len(shown) // n_columns)
    figure = Figure(figsize=(3.6 * n_columns, 2.8 * n_rows + 0.4), dpi=110, layout="constrained")
    last = max(line.epochs[-1] for line in lines)
    for i, panel in enumerate(shown):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        _draw_lines(axes, [line for line in lines if line.panel == panel])
        axes.set_title(PANELS[panel].title)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        margin = max(0.5, 0.03 * last)
        axes.set_xlim(1 - margin, last + margin)
        if i + n_columns >= len(shown):
            axes.set_xlabel("epoch")
        if PANELS[panel].title == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    stages = [stage for stage in STYLES if any(line.stage == stage for line in lines)]
    figure.legend(
        [
            Line2D(
                [],
                [],
                color="black",
                linestyle=STYLES[stage],
                marker="o",
                markersize=3.5,
                markerfacecolor=FILLS[stage],
            )
            for stage in stages
        ],
        stages,
        loc="outside upper center",
        ncols=len(stages),
        frameon=False,
    )
    return figure


def read_csv(path: str | Path) -> dict[str, list[float | None]]:
    """Columns of a CSV file of numbers, None where a field is empty or no number.

    Raises:
        OSError: If the file cannot be read.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot read the training history {str(path)!r} ({error.strerror}). Give the "
            "metrics.csv that Lightning's CSVLogger writes into its log folder",
        ) from error
    return {name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def confusion(
    predicted: Int[Tensor, " n"], y: Int[Tensor, " labels"], class_names: Sequence[str]
) -> "matplotlib.figure.Figure":
    """Draws how often each class is taken for each other one.

    Only the errors are coloured, by the square root of their count: of 10,000 predictions that
    are 99 % right, one pair confused twice and one confused ten times are both seen.

    Args:
        predicted: Predicted classes.
        y: True classes.
        class_names: Names of the classes.

    Raises:
        ValueError: If the lengths differ, or a class is not in 0..K-1.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if predicted.shape != y.shape:
        raise ValueError(
            f"there must be one prediction for each label, got {tuple(predicted.shape)} and "
            f"{tuple(y.shape)}. Take argmax(-1) of logits first."
        )
    k = len(class_names)
    check_labels(y, k)
    check_labels(predicted, k)
    pairs = (y.long() * k + predicted.long()).cpu()
    counts = torch.bincount(pairs, minlength=k * k).reshape(k, k).numpy()
    errors = np.ma.masked_where(np.eye(k, dtype=bool) | (counts == 0), counts)

    side = float(np.clip(0.48 * k, 3.2, 9))
    figure = Figure(figsize=(side + 2.4, side + 1.1), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    diagonal = np.ma.masked_where(~np.eye(k, dtype=bool), np.ones((k, k)))
    axes.imshow(diagonal, cmap="Blues", vmin=0, vmax=5)
    top = max(1, int(errors.max())) if errors.count() else 1
    image = axes.imshow(errors, cmap="Reds", norm=PowerNorm(0.5, vmin=0, vmax=top))
    if k <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            count = int(counts[row, column])
            dark = row != column and count > 0.4 * top and top > 1
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                fontsize=8 if count < 10_000 else 6.5,
                color="white" if dark else "black",
            )
    _label_classes(axes, class_names, counts)
    right, n = int(np.trace(counts)), len(y)
    axes.set_title(f"{right / n:.2%} right: {right:,} of {n:,}")
    if errors.count():
        ticks = MaxNLocator(8, integer=True)
        figure.colorbar(image, ax=axes, label="errors (count)", shrink=0.8, pad=0.03, ticks=ticks)
    return figure


def _label_classes(
    axes: "matplotlib.axes.Axes", class_names: Sequence[str], counts: Int[np.ndarray, "k k"]
) -> None:
    k = len(class_names)
    every = range(0, k, -(-k // 40))  # names of hundreds of classes would cover each other
    total = counts.sum(1)
    names = [
        f"{class_names[i]}  {counts[i, i] / total[i]:.1%}" if total[i] else class_names[i]
        for i in every
    ]
    long = max(map(len, class_names)) > 3
    axes.set_xticks(list(every), [class_names[i] for i in every], rotation=45 if long else 0)
    axes.set_yticks(list(every), names)
    for label in axes.get_xticklabels():
        if long:
            label.set(ha="right", rotation_mode="anchor")
        label.set_parse_math(False)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set(xlabel="predicted class", ylabel="true class, and its share predicted right")
    axes.set_xticks(np.arange(-0.5, k), minor=True)
    axes.set_yticks(np.arange(-0.5, k), minor=True)
    if k <= 20:
        axes.grid(which="minor", color="0.88", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _series(columns: History) -> list[Series]:
    lines: dict[tuple[int, str, str], tuple[bool, Series]] = {}
    epochs = columns.get("epoch")
    for name, column in columns.items():
        parts = [part for part in re.split(r"[/._]", name.lower()) if part]
        stage = next((STAGES[part] for part in parts if part in STAGES), "training")
        by_step = "step" in parts
        quantity = "_".join(
            part for part in parts if part not in STAGES and part not in ("step", "epoch")
        )
        for i, panel in enumerate(PANELS):
            match = panel.pattern.fullmatch(quantity)
            if match is None:
                continue
            block = next((group for group in match.groups() if group), "")
            when, values = _by_epoch(column, epochs)
            key = (i, block, stage)
            # Where a quantity is logged by step and by epoch, the epoch's own value counts.
            if values and (key not in lines or lines[key][0]):
                lines[key] = (by_step, Series(i, block, stage, when, values))
            break
    return [line for _, line in lines.values()]


def _by_epoch(
    column: Sequence[float | int | None], epochs: Sequence[float | int | None] | None
) -> tuple[list[int], list[float]]:
    aligned = epochs if epochs is not None and len(epochs) == len(column) else range(len(column))
    found: dict[int, list[float]] = defaultdict(list)
    for epoch, value in zip(aligned, column, strict=True):
        if epoch is not None and value is not None and math.isfinite(value):
            found[int(epoch) + 1].append(value)
    when = sorted(found)
    return when, [sum(found[epoch]) / len(found[epoch]) for epoch in when]


def _draw_lines(axes: "matplotlib.axes.Axes", lines: list[Series]) -> None:
    blocks = sorted({line.block for line in lines})
    for line in lines:
        axes.plot(
            line.epochs,
            line.values,
            color=PALETTE[blocks.index(line.block) % 5],
            linestyle=STYLES[line.stage],
            marker="o",
            markersize=3.5 if len(line.epochs) < 40 else 0,
            markerfacecolor=FILLS[line.stage],
            label=line.block if line.stage == lines[0].stage else None,
        )
    if len(blocks) > 1:
        axes.legend(fontsize=8, frameon=False)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None

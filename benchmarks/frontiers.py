"""Plots of the comparison: what is bought with what."""

from pathlib import Path
from typing import Any

from benchmarks.evidence import average

PAIRS = {
    "preservation": ("diversity_ratio", "preservation", "diversity", "class kept"),
    "leakage": ("leakage_samples_strongest", "test_accuracy", "leakage", "accuracy"),
    "fid": ("fid", "test_accuracy", "FID", "accuracy"),
}


def draw(
    found: dict[str, list[dict[str, Any]]], ours: dict[str, bool], folder: Path, suite: str
) -> None:
    """Writes a picture of frontiers and one of speeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker
    import seaborn as sns

    folder.mkdir(parents=True, exist_ok=True)
    colours = sns.color_palette("colorblind")
    order = {name: i + 1 for i, name in enumerate(found)}
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(2, 2, figsize=(8.6, 7.4), layout="constrained")
        *places, key = axes.flat
        for place, (across, upright, x_title, y_title) in zip(places, PAIRS.values(), strict=True):
            means = {}
            for name, runs in found.items():
                points = [
                    (one[across], one[upright])
                    for one in runs
                    if one.get(across) is not None and one.get(upright) is not None
                ]
                if not points:
                    continue
                means[name] = [sum(values) / len(points) for values in zip(*points, strict=True)]
                colour = colours[0] if ours[name] else colours[1]
                place.scatter(
                    *zip(*points, strict=True), s=14, color=colour, alpha=0.35, linewidths=0
                )
                place.scatter(*means[name], s=26, color=colour, linewidths=0)
            place.set(xlabel=x_title, ylabel=y_title)
            place.margins(0.14)
            if across == "fid":
                place.set_xscale("log")
                place.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 3)))
                place.xaxis.set_major_formatter("{x:,.0f}")
                place.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            figure.draw_without_rendering()  # so that places on the paper are known
            for name, (spot, point) in _apart(place, means).items():
                colour = colours[0] if ours[name] else colours[1]
                place.annotate(
                    str(order[name]), point, xytext=spot, textcoords="offset pixels",
                    ha="center", va="center", fontsize=8,
                    bbox={"boxstyle": "circle,pad=0.18", "fc": "white", "ec": colour},
                    arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkB": 0},
                )  # fmt: skip
        key.set_axis_off()
        rows = (len(order) + 2) // 2
        for i, name in enumerate(order):
            colour = colours[0] if ours[name] else colours[1]
            x, y = 0.5 * (i // rows), 0.97 - (i % rows) / (rows + 1)
            key.text(
                x + 0.03, y, str(order[name]), fontsize=8, ha="center", va="center",
                bbox={"boxstyle": "circle,pad=0.18", "fc": "white", "ec": colour},
            )  # fmt: skip
            key.text(x + 0.08, y, name, fontsize=9, va="center")
        key.text(0, 0, "blue: this package", fontsize=9, color=colours[0])
        figure.savefig(folder / f"run_{suite}.png", dpi=110)
        plt.close(figure)
        _speeds(found, ours, folder, suite, colours, plt)


def _apart(place: Any, means: dict[str, list[float]]) -> dict[str, tuple[Any, Any]]:
    """Offsets of labels in pixels, each as near to its point as others leave room for."""
    import numpy as np

    spots = {name: place.transData.transform(point) for name, point in means.items()}
    radius = 12 * place.figure.dpi / 72
    labels: list[Any] = []
    inside = place.get_window_extent()
    found = {}
    for name, spot in spots.items():
        best = None
        for distance in np.arange(1.0, 9.0, 0.25) * radius:
            for angle in np.arange(16) * np.pi / 8 + np.pi / 4:
                offset = distance * np.array([np.cos(angle), np.sin(angle)])
                at = spot + offset
                free = all(np.hypot(*(at - other)) > 1.5 * radius for other in labels)
                # No label hides a mean either.
                free &= all(np.hypot(*(at - other)) > 0.9 * radius for other in spots.values())
                if free and inside.padded(-0.6 * radius).contains(*at):
                    best = offset
                    break
            if best is not None:
                break
        offset = np.array([radius, radius]) if best is None else best
        labels.append(spot + offset)
        found[name] = (offset, means[name])
    return found


def _speeds(
    found: dict[str, list[dict[str, Any]]], ours: dict[str, bool], folder: Path, suite: str,
    colours: Any, plt: Any,
) -> None:  # fmt: skip
    names = [name for name, runs in found.items() if average(runs, "seconds_per_epoch")]
    if not names:
        return
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.6 + 0.27 * len(names)), layout="constrained")
    for place, key, title in (
        (axes[0], "seconds_per_epoch", "seconds per epoch"),
        (axes[1], "samples_per_second", "samples per second"),
    ):
        values = [average(found[name], key) or 0.0 for name in names]
        place.barh(
            names, values, color=[colours[0] if ours[name] else colours[1] for name in names]
        )
        place.set(xlabel=title)
        place.invert_yaxis()
        if place is axes[1]:
            place.set_yticklabels([])
            # No logarithms: they have no zero, which the length of a bar is counted from.
            place.xaxis.set_major_locator(plt.MaxNLocator(5))
            place.xaxis.set_major_formatter("{x:,.0f}")
    figure.savefig(folder / f"run_{suite}_speed.png", dpi=110)
    plt.close(figure)

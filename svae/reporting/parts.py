"""What the page shows, measured and drawn from a factorization alone."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from svae import plots
from svae.attribution import averaged, invariance_map, rank_correlation
from svae.counterfactuals import Changed, class_parts, counterfactual, semi_factual
from svae.factorization import Factorization, in_batches
from svae.latent import Latent
from svae.nuisances import Names
from svae.plots.embeddings import PALETTE, reduced
from svae.reporting.inlining import Sprite, sprite

__all__ = [
    "Pair",
    "Points",
    "Slider",
    "attempted",
    "finite",
    "maps",
    "pairs",
    "pictures",
    "points",
    "sliders",
]

logger = logging.getLogger("svae")
MOST_SLIDERS = 32
_STEPS = torch.linspace(-3, 3, 13)


@dataclass(frozen=True)
class Slider:
    """Pictures decoded along one dim, one row for each step.

    Args:
        label: Of the dim.
        name: What it varies.
        share: Of the change, explained by that.
        steps: In standard deviations.
        pictures: One row for each step.
    """

    label: str
    name: str
    share: float
    steps: list[float]
    pictures: Sprite


@dataclass(frozen=True)
class Pair:
    """One input with its semi-factual and its counterfactual.

    Args:
        title: What the model answers.
        pictures: Input, reconstruction, semi-factual and counterfactual.
        captions: Of each of them.
        lines: Points ``x,y`` of the two paths' confidence, for a curve in [0, 100].
    """

    title: str
    pictures: Sprite
    captions: list[str]
    lines: list[str]


@dataclass(frozen=True)
class Points:
    """Codes in the plane, each with its picture.

    Args:
        title: Which codes, and how they were reduced.
        places: ``(x, y, colour, name)`` in a square of 100.
        classes: Names and colours.
        pictures: One for each point, in rows.
    """

    title: str
    places: list[tuple[float, float, str, str]]
    classes: list[tuple[str, str]]
    pictures: Sprite


def attempted(name: str, make: Callable[[], Any], why: dict[str, str]) -> Any:
    """What a part gives; where it cannot be made, why, and the page goes on without it."""
    try:
        return make()
    except (ImportError, ValueError, RuntimeError, NotImplementedError) as error:
        why[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
        logger.info("the report has no %s: %s", name, why[name])
        return None


@torch.no_grad()
def sliders(factorization: Factorization, x: Tensor, names: Names | None) -> list[Slider]:
    """Every dim of the nuisance, those that move pictures most first; at most 32."""
    latent = factorization.encode(x)
    scale = factorization.sample_nuisance(latent, 32).flatten(0, 1).std(0)
    n_dims = latent.z_nuisance.shape[1]
    dims = list(range(n_dims))
    if names is not None and len(names.directions) == n_dims:
        dims.sort(key=lambda i: -names.directions[i].moved)
    found = []
    for i in dims[:MOST_SLIDERS]:
        rows = []
        for step in _STEPS.tolist():
            z = latent.z_nuisance.clone()
            z[:, i] = step * scale[i]
            rows.append(factorization.decode(Latent(latent.z_class, z)))
        known = names.directions[i] if names is not None and i < len(names.directions) else None
        found.append(
            Slider(
                label=f"dim {i}",
                name=known.name if known else "",
                share=known.share if known else 0.0,
                steps=[round(step, 2) for step in _STEPS.tolist()],
                pictures=sprite(torch.stack(rows)),
            )
        )
    return found


def pairs(
    factorization: Factorization,
    x: Tensor,
    among: Tensor,
    class_names: list[str],
    generator: torch.Generator,
) -> list[Pair]:
    """Semi-factual and counterfactual of each input."""
    kept = semi_factual(factorization, x, generator=generator)
    turned = counterfactual(factorization, x, class_parts(factorization, among))
    own = in_batches(factorization.predict, x).argmax(1)
    again = factorization.decode(factorization.encode(x))
    found = []
    for i, label in enumerate(own.tolist()):
        row = torch.stack([x[i], again[i], kept.x[i], turned.x[i]])[None]
        found.append(
            Pair(
                title=f"read as {class_names[label]}",
                pictures=sprite(row),
                captions=[
                    "input",
                    "decoded",
                    f"farthest still {_said(kept, i, class_names)}",
                    f"nearest {_said(turned, i, class_names)}",
                ],
                lines=[_line(one, i) for one in (kept, turned)],
            )
        )
    return found


def maps(
    factorization: Factorization, x: Tensor, class_names: list[str], generator: torch.Generator
) -> tuple[Any, dict[str, float]]:
    """A figure of attribution and invariance maps, and what was measured of them."""
    with torch.enable_grad():
        found = averaged(factorization.predict, factorization, x, n=4, generator=generator)
    free = invariance_map(factorization, x, 32, generator)
    needed = found.values.abs().sum(1, keepdim=True)
    open_ = free.sum(1, keepdim=True)
    numbers = {"map_rank_correlation": float(rank_correlation(needed, open_).mean())}
    if found.error is not None:
        numbers["completeness_error"] = float(found.error.median())
    answers = in_batches(factorization.predict, x).argmax(1).tolist()
    return _map_figure(x, needed, open_, [class_names[k] for k in answers]), numbers


def points(
    factorization: Factorization, x: Tensor, class_names: list[str], seed: int
) -> list[Points]:
    """Both blocks of the latent in the plane, coloured by the model's answer."""
    latent = in_batches(factorization.encode, x)
    own = in_batches(factorization.predict, x).argmax(1).tolist()
    columns = 25
    padded = torch.cat([x, x.new_zeros(-len(x) % columns, *x.shape[1:])])
    pictures = sprite(padded.unflatten(0, (-1, columns)))
    present = sorted(set(own))
    colours = {k: PALETTE[i % len(PALETTE)] for i, k in enumerate(present)}
    found = []
    for title, codes in (("class part", latent.z_class), ("nuisance", latent.z_nuisance)):
        plane, method = reduced(codes, seed)
        low, high = plane.amin(0), plane.amax(0)
        places = (4 + 92 * (plane - low) / (high - low).clamp_min(1e-9)).tolist()
        found.append(
            Points(
                title=f"{title} ({method})",
                places=[
                    (round(a, 1), round(b, 1), colours[k], class_names[k])
                    for (a, b), k in zip(places, own, strict=True)
                ],
                classes=[(class_names[k], colours[k]) for k in present[:30]],
                pictures=pictures,
            )
        )
    return found


def pictures(
    factorization: Factorization,
    x: Tensor,
    class_names: list[str],
    generator: torch.Generator,
) -> Mapping[str, tuple[str, Callable[[], Any]]]:
    """Figures by name, each with what it shows in words."""
    from svae.editing import response
    from svae.factorization import parts as parts_of

    named = parts_of(factorization)

    def answers() -> Any:
        found = {name: response(factorization, x[:32], name, 16, generator) for name in named}
        return plots.responses(found, class_names)

    return {
        "nuisance_grid": (
            "Rows begin with an input; what follows has the same class part and another nuisance",
            lambda: plots.nuisance_grid(factorization, x[:6], 8, generator, class_names),
        ),
        "swap_grid": (
            "The class part of the row's input with the nuisance of the column's",
            lambda: plots.swap_grid(factorization, x[:8]),
        ),
        "responses": ("What the model answers when one part is drawn anew", answers),
    }


def _said(changed: Changed, i: int, class_names: list[str]) -> str:
    if not bool(changed.found[i]):
        return "(not found)"
    name, sure = class_names[int(changed.answer[i])], float(changed.confidence[i])
    return f"{name}: {sure:.0%} sure, moved {float(changed.distance[i]):.3f}"


def _line(changed: Changed, i: int) -> str:
    sure = changed.path_confidence[:, i].tolist()
    last = max(len(sure) - 1, 1)
    return " ".join(f"{100 * k / last:.1f},{100 - 100 * p:.1f}" for k, p in enumerate(sure))


def _map_figure(x: Tensor, needed: Tensor, open_: Tensor, answers: Sequence[str]) -> Any:
    from matplotlib.figure import Figure

    n = len(x)
    figure = Figure(figsize=(1.25 * n + 1.2, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots(3, n, squeeze=False)
    rows = (("input", x, "gray"), ("needed", needed, "magma"), ("let go", open_, "viridis"))
    for row, (title, values, palette) in enumerate(rows):
        for column in range(n):
            one, place = values[column].detach().cpu(), axes[row, column]
            picture = one.permute(1, 2, 0).numpy()
            place.imshow(picture.squeeze(-1) if picture.shape[2] == 1 else picture, cmap=palette)
            place.set(xticks=[], yticks=[])
            if column == 0:
                place.set_ylabel(title, fontsize=9)
            if row == 0:
                place.set_title(answers[column], fontsize=8, parse_math=False)
    figure.suptitle(
        "Pixels that the answer needs, and pixels that vary with the nuisance", fontsize=10
    )
    return figure


def finite(value: Any) -> bool:
    """Whether this is a number that can be shown."""
    return isinstance(value, int | float) and math.isfinite(value)

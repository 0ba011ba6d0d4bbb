"""What each layer of a network still knows, and what it ignores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from svae.bridges.frozen import Frozen
from svae.bridges.invariance import CodeDensity, InvarianceBridge
from svae.data import as_data
from svae.explaining import (
    ExplainSettings,
    check_scaling,
    fit_autoencoder,
    fit_bridge,
    fit_density,
    open_for,
)
from svae.factorization import resample_nuisance
from svae.fibres import fibre_losses, information, nearest_fibre_loss, variance_explained
from svae.metrics import Estimate, mean, preservation, reconstruction_preservation

__all__ = ["LayerProfile", "layer_profile", "sensible_layers"]

logger = logging.getLogger("svae")


@dataclass(frozen=True)
class LayerProfile:
    """What each layer of a network still knows, and what it ignores.

    Attributes:
        layers: Names, from input to logits.
        reconstructed: Share of the network's answers that plain reconstructions keep: the bound on
            everything else.
        rows: By layer, the :class:`svae.metrics.Estimate` of each number by its name:
            ``kept`` (share of answers that draws keep), ``variance_explained``, ``fibre_loss``,
            ``fibre_loss_reconstructed``, ``fibre_loss_nearest``, ``diversity`` (mean distance of
            two draws over that of two inputs, in pixels) and ``information`` in nats.
        noise: On the codes, for ``information``.
        bridges: The bridge of each layer.
    """

    layers: tuple[str, ...]
    reconstructed: Estimate
    rows: dict[str, dict[str, Estimate]]
    noise: float
    bridges: dict[str, InvarianceBridge] = field(default_factory=dict, repr=False)

    def flat(self) -> dict[str, float]:
        """``layer.name`` → number, with ``_low`` and ``_high`` beside it."""
        found: dict[str, float] = {}
        named = {"reconstructed": self.reconstructed}
        named |= {
            f"{layer}.{name}": one for layer, row in self.rows.items() for name, one in row.items()
        }
        for name, one in named.items():
            found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        return found

    def table(self) -> str:
        """The numbers in Markdown, a row for each layer."""
        columns = {
            "answer kept": ("kept", ".3f"),
            "variance explained by v": ("variance_explained", ".3f"),
            "known, nats": ("information", ".1f"),
            "fibre loss": ("fibre_loss", ".3f"),
            "of reconstructions": ("fibre_loss_reconstructed", ".3f"),
            "of the nearest real input": ("fibre_loss_nearest", ".3f"),
            "diversity": ("diversity", ".2f"),
        }
        lines = [f"| layer | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for layer in self.layers:
            cells = [format(self.rows[layer][name].value, form) for name, form in columns.values()]
            lines.append(f"| {layer} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def layer_profile(
    frozen: Frozen,
    data: object,
    layers: Sequence[str] | None = None,
    *,
    settings: ExplainSettings | None = None,
    autoencoder: nn.Module | None = None,
    n_images: int = 1000,
    seed: int = 0,
    cache: str | Path | None = None,
    **trainer: Any,
) -> LayerProfile:
    """Explains a network at several layers and measures each.

    Args:
        frozen: The network, opened at any layer.
        data: As in :func:`explain`; test examples are measured.
        layers: Names, from input to logits; a handful if None, see :func:`sensible_layers`.
        settings: How long and how finely.
        autoencoder: A fitted one of your own; else one is trained and kept.
        n_images: Test images that are measured.
        seed: Of weights, batches and noise.
        cache: Folder of what was trained before.
        trainer: Keywords of :class:`pytorch_lightning.Trainer`.
    """
    settings = settings or ExplainSettings()
    data = as_data(data, seed=seed)
    open_for(frozen, data)
    check_scaling(frozen, data)
    layers = tuple(layers or sensible_layers(frozen, data.test.floats(limit=2)))
    opened = {layer: frozen.at(layer) for layer in layers}  # a wrong name is found at once
    shared: dict[str, Any] = {"settings": settings, "seed": seed, "cache": cache}
    coder = autoencoder or fit_autoencoder(frozen, data, **shared, **trainer)
    shared["autoencoder"] = autoencoder
    density = fit_density(frozen, data, coder, **shared, **trainer)
    x, among = data.test.floats(limit=n_images), data.test.floats(limit=10_000)
    rows, bridges, reconstructed = {}, {}, None
    for layer, network in opened.items():
        bridge = fit_bridge(network, data, **shared, **trainer)
        rows[layer] = _measured(bridge, density, x, among, settings.noise, seed)
        bridges[layer] = bridge
        reconstructed = reconstructed or reconstruction_preservation(bridge, x, bridge.predict)
        logger.info(
            "%s: %s", layer, {name: round(one.value, 3) for name, one in rows[layer].items()}
        )
    assert reconstructed is not None
    return LayerProfile(layers, reconstructed, rows, settings.noise, bridges)


def _measured(
    bridge: InvarianceBridge,
    density: CodeDensity,
    x: Tensor,
    among: Tensor,
    noise: float,
    seed: int,
) -> dict[str, Estimate]:
    generator = torch.Generator().manual_seed(seed)
    drawn, again = fibre_losses(bridge, x, 4, generator)
    return {
        "kept": preservation(bridge, x, bridge.predict, 4, generator),
        "variance_explained": variance_explained(bridge, x[:500], 32, generator),
        "information": information(bridge, density, x, noise, seed),
        "fibre_loss": drawn,
        "fibre_loss_reconstructed": again,
        "fibre_loss_nearest": nearest_fibre_loss(bridge, x, among),
        "diversity": _diversity(bridge, x[:200], generator),
    }


def _diversity(bridge: InvarianceBridge, x: Tensor, generator: torch.Generator) -> Estimate:
    one, other = resample_nuisance(bridge, x, 2, generator).flatten(2)
    apart = (one - other).norm(dim=1)
    return mean(apart / (x.flatten(1) - x.roll(1, 0).flatten(1)).norm(dim=1).mean())


def sensible_layers(frozen: Frozen, x: Tensor, n: int = 6) -> tuple[str, ...]:
    """A handful of layers from input to logits.

    The network's own stages where it has four or more, else its smallest modules; those that only
    hand on what they get, or run more than once, are left out.

    Args:
        frozen: The network.
        x: A few inputs.
        n: How many layers, at most.
    """
    ran = frozen.outputs(x)
    top = {name: value for name, value in ran.items() if "." not in name}
    leaves = {
        name: value
        for name, value in ran.items()
        if not any(other.startswith(f"{name}.") for other in ran)
    }
    chosen: dict[str, Tensor] = {}
    before: Tensor | None = None
    for name, value in (top if len(top) >= 4 else leaves).items():
        flat = value.flatten()
        if before is None or flat.shape != before.shape or not torch.equal(flat, before):
            chosen[name] = value
        before = flat
    names = list(chosen)
    if len(names) <= n:
        return tuple(names)
    places = torch.linspace(0, len(names) - 1, n).round().int().tolist()
    return tuple(names[place] for place in places)

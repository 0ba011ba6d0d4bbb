"""What is kept of bridges, and how it is written."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from svae.bridges.frozen import Frozen
from svae.saving import checksum, describe, digest_of, save_weights, writable

__all__ = [
    "FOREIGN",
    "description_of",
    "fitted_part",
    "opened_at",
    "part_digest",
    "save_bridge",
    "save_translation",
]

FOREIGN = "foreign"  # stands for a part that is not from this package


def save_bridge(bridge: Any, folder: str | Path) -> None:
    """Writes what :meth:`ConceptBridge.save` says."""
    flow, coordinates = bridge.built()
    folder = writable(folder)
    config: dict[str, Any] = {
        "class": "svae.ConceptBridge",
        "frozen": description_of(bridge.frozen),
        "fingerprint": bridge.frozen.fingerprint,
        "opened": opened_at(bridge.frozen),
        "x_shape": bridge.frozen.x_shape,
        "shape": coordinates.shape,
        "decoder": None if bridge.decoder is None else description_of(bridge.decoder),
        "settings": bridge.settings,
        "answer": bridge.answer_concept,
        "sizes": [
            [name, bridge.block(name).n_dims, bridge.block(name).n_values]
            for name in bridge.concept_names
        ],
    }
    kept = nn.ModuleDict({"coordinates": coordinates, "flow": flow, "blocks": bridge.blocks})
    if bridge.decoder is not None and config["decoder"] != FOREIGN:
        kept["decoder"] = bridge.decoder
    _write(bridge.frozen, kept, config, folder)


def save_translation(model: Any, folder: str | Path) -> None:
    """Writes what :meth:`Translator.save` says."""
    folder = writable(folder)
    names = model.part_names
    parts = dict(zip(names, (model.source, model.target), strict=True))
    config: dict[str, Any] = {
        "class": f"svae.{type(model).__name__}",
        **{name: description_of(part) for name, part in parts.items()},
        "digests": {name: part_digest(part) for name, part in parts.items()},
        "fingerprint": getattr(model.source, "fingerprint", None),
        "opened": opened_at(model.source),
        "x_shape": model.x_shape,
        "source_shape": getattr(model.source, "x_shape", None),
        "view": model.view is not None,
        "settings": model.settings,
        "code_noise": model.code_noise,
        "units": True,  # codes are standardised, which they were not in older files
    }
    kept = nn.ModuleDict({"fitted": fitted_part(model)})
    if config[names[1]] != FOREIGN:
        kept[names[1]] = model.target
    _write(model.source, kept, config, folder, names[0])


def _write(
    source: Any, kept: nn.ModuleDict, config: dict[str, Any], folder: Path, name: str = "frozen"
) -> None:
    if config[name] != FOREIGN and isinstance(source, nn.Module):
        kept[name] = source
    weights = folder / "model.safetensors"
    save_weights(kept, weights)
    config["sha256"] = checksum(weights)
    (folder / "model.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def fitted_part(bridge: Any, with_units: bool = True) -> nn.Module:
    """What :func:`svae.fit` has set, without the parts that stay frozen."""
    part = nn.Module()
    for name in (*bridge.fitted, *["units"] * with_units):
        part.add_module(name, getattr(bridge, name))
    for name in ("mean", "scale", "size"):
        part.register_buffer(name, getattr(bridge, name))
    if bridge.centre is not None:
        part.add_module("centre", fitted_part(bridge.centre))
    return part


def description_of(part: object) -> Any:
    """How a part of this package is built again; ``FOREIGN`` of others."""
    try:
        return describe(part)
    except TypeError:
        return FOREIGN


def opened_at(source: Any) -> dict[str, Any] | None:
    """Where a network was opened, which its weights do not say."""
    if not isinstance(source, Frozen):
        return None
    return {"layer": source.layer, "tokens": source.tokens}


def part_digest(part: Any) -> str | None:
    """Of all tensors of a source or target; None of what has none, or a fingerprint of its own."""
    ours = isinstance(part, nn.Module) and not isinstance(part, Frozen)
    state = part.state_dict() if ours else {}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return digest_of(tensors) if tensors else None

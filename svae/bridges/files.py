"""Bridges from files that need no unpickling."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from svae.bridges.concepts import ConceptBridge
from svae.bridges.coordinates import Coordinates
from svae.bridges.frozen import Frozen
from svae.bridges.invariance import InvarianceBridge
from svae.bridges.naming import Evidence
from svae.bridges.translation import MeanTranslator, TranslationBridge
from svae.bridges.translator import Translator
from svae.bridges.writing import (
    FOREIGN,
    description_of,
    fitted_part,
    opened_at,
    part_digest,
)
from svae.saving import load_weights, read_json, rebuild

__all__ = ["restore", "restore_invariance", "restore_translation"]


def restore_translation(
    folder: str | Path,
    source: Any = None,
    target: nn.Module | None = None,
    view: Callable[[torch.Tensor], Any] | None = None,
) -> Translator:
    """Loads what a bridge or a mean translator wrote, in evaluation mode on the CPU.

    Args:
        folder: The folder that was written.
        source: What is translated from, needed where it is not from this package.
        target: What is translated to, needed where it is not from this package.
        view: From the target's inputs to the source's, needed where there was one.

    Raises:
        ValueError: If source or target is another than was fitted to, a part is missing or a
            file is damaged.
    """
    config = read_json(Path(folder) / "model.json")
    if config.get("view") and view is None:
        raise ValueError(
            f"the bridge in {folder} has a view, which is not kept: give it again, svae.load("
            "folder, view=...)"
        )

    mean = config["class"] == f"svae.{MeanTranslator.__name__}"
    kind = MeanTranslator if mean else TranslationBridge

    def build(found: Any, coder: nn.Module) -> Translator:
        settings, parts = dict(config["settings"]), (found, coder, view, config["x_shape"])
        if centre := settings.get("centre"):
            settings["centre"] = MeanTranslator(*parts, **centre)
        return kind(*parts, **settings)

    return _restored(kind, folder, config, source, target, build)


def restore_invariance(
    folder: str | Path, frozen: Frozen | None = None, autoencoder: nn.Module | None = None
) -> InvarianceBridge:
    """Loads what :meth:`InvarianceBridge.save` wrote, in evaluation mode on the CPU.

    Args:
        folder: The folder that was written.
        frozen: The frozen network, needed where it is not from this package.
        autoencoder: Needed where it is not from this package.

    Raises:
        ValueError: If the network is another than the bridge was fitted to, a part is missing
            or a file is damaged.
    """
    config = read_json(Path(folder) / "model.json")

    def build(network: Any, coder: nn.Module) -> InvarianceBridge:
        return InvarianceBridge(network, coder, **config["settings"])

    return _restored(InvarianceBridge, folder, config, frozen, autoencoder, build)


_B = TypeVar("_B", bound=Translator)


def _restored(
    kind: type[_B],
    folder: str | Path,
    config: dict[str, Any],
    source: Any,
    target: nn.Module | None,
    build: Callable[[Any, nn.Module], _B],
) -> _B:
    """A bridge with the weights of its file, built of what was given or is described there."""
    folder, names = Path(folder), kind.part_names
    if absent := {*names, "x_shape", "settings"} - {*config}:
        raise ValueError(_strange(folder, f"it lacks {', '.join(sorted(absent))}"))
    given = {names[0]: source, names[1]: target}
    found, coder = _parts(folder, config, **given)
    if found is None or coder is None:
        missing = names[0].replace("frozen", "frozen network") if found is None else names[1]
        example = {"frozen": "svae.Frozen(model, layer)"}.get(names[0], "...")
        raise ValueError(
            f"the {missing} of {folder} is not from this package, or holds a function or a model "
            f"that is not, and cannot be written: give it again, svae.load(folder, "
            f"{names[0]}={example}, {names[1]}=...)"
        )
    if isinstance(found, Frozen):
        # Files that were written before sources had shapes of their own have one for both.
        found.x_shape = tuple(config.get("source_shape") or config["x_shape"])
    for name, part in given.items():
        _check_given(part, name, config, folder)
    bridge = build(found, coder)
    bridge.code_noise = config.get("code_noise", 0.0)
    kept = nn.ModuleDict({"fitted": fitted_part(bridge, with_units="units" in config)})
    for name, part in ((names[1], coder), (names[0], found)):
        if config[name] != FOREIGN and isinstance(part, nn.Module):
            # What was given keeps its own weights.
            kept[name] = part if given[name] is None else copy.deepcopy(part)
    load_weights(kept, folder / "model.safetensors", config.get("sha256"))
    if isinstance(found, Frozen):
        _check_fingerprint(found, config, folder)
    return bridge.eval()


def _parts(folder: Path, config: Any, **given: Any) -> list[Any]:
    """The parts that were given, or else those that the file describes; None for missing ones."""
    try:
        return [
            rebuild(config[name]) if part is None and config[name] not in (None, FOREIGN) else part
            for name, part in given.items()
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(_strange(folder, str(error))) from error


def _strange(folder: Path, why: str) -> str:
    return (
        f"{folder / 'model.json'} is not what .save(folder) writes ({why}): it was damaged or is "
        "another program's file. Copy or fit again."
    )


def _check_given(part: Any, name: str, config: dict[str, Any], folder: Path) -> None:
    """Refuses another part than was fitted to, as far as its file says."""
    if part is None:
        return
    opened = config.get("opened")
    if isinstance(part, Frozen) and opened is not None and opened != opened_at(part):
        raise ValueError(
            f"the bridge in {folder} was fitted to the network opened at {opened}, got "
            f"{opened_at(part)}. Write svae.Frozen(model, layer=..., tokens=...) as then."
        )
    was, digest = config[name], config.get("digests", {}).get(name)
    other = was != FOREIGN and (own := description_of(part)) != FOREIGN and own != was
    if other or (digest is not None and digest != part_digest(part)):
        raise ValueError(
            f"the bridge in {folder} was fitted to another {name}: it is built otherwise or has "
            f"other weights. Give the {name} as it was."
        )


def _check_fingerprint(network: Frozen, config: dict[str, Any], folder: Path) -> None:
    if network.fingerprint != config["fingerprint"]:
        raise ValueError(
            f"the bridge in {folder} was fitted to another frozen network: fingerprint "
            f"{config['fingerprint'][:12]}, got {network.fingerprint[:12]}. Give the network "
            "with the same weights."
        )


def restore(
    folder: str | Path, frozen: Frozen | None = None, decoder: nn.Module | None = None
) -> ConceptBridge:
    """Loads what :meth:`ConceptBridge.save` wrote, in evaluation mode on the CPU.

    Args:
        folder: The folder that was written.
        frozen: The frozen network, needed where it is not from this package.
        decoder: Needed where the decoder is not from this package; without it nothing can be
            decoded, and all else works.

    Raises:
        ValueError: If the network is another than the bridge was fitted to, a part is missing
            or a file is damaged.
    """
    folder = Path(folder)
    config = read_json(folder / "model.json")
    network, shown = _parts(folder, config, frozen=frozen, decoder=decoder)
    _check_given(frozen, "frozen", config, folder)
    try:
        sizes = {name: (n_dims, n_values) for name, n_dims, n_values in config["sizes"]}
        settings, answer = config["settings"], config["answer"]
    except (KeyError, TypeError) as error:
        raise ValueError(_strange(folder, str(error))) from error
    if not isinstance(network, Frozen):
        raise ValueError(
            f"the frozen network of {folder} is not from this package: give it again, "
            "svae.load(folder, frozen=svae.Frozen(model, layer))"
        )
    concepts = [Named(name, name == answer) for name in sizes]
    bridge = ConceptBridge(network, concepts, decoder=shown, **settings)
    bridge.frozen.x_shape = tuple(config["x_shape"])
    coordinates = Coordinates(
        config["shape"], settings["max_features"], settings["max_components"]
    )
    coordinates.scale = torch.zeros(_count_features(folder / "model.safetensors"))
    bridge.assemble(coordinates, sizes)
    flow, _ = bridge.built()
    kept = nn.ModuleDict({"coordinates": coordinates, "flow": flow, "blocks": bridge.blocks})
    for name, part, given in (("decoder", shown, decoder), ("frozen", network, frozen)):
        if part is not None and config[name] not in (None, FOREIGN):
            kept[name] = part if given is None else copy.deepcopy(part)  # which keeps its own
    load_weights(kept, folder / "model.safetensors", config.get("sha256"))
    _check_fingerprint(network, config, folder)
    return bridge.eval()


@dataclass(frozen=True)
class Named:
    """A concept of a loaded bridge, of which only the name was kept.

    Args:
        name: Name of the concept.
        is_class: Whether it is the class.
    """

    name: str
    is_class: bool = False

    def evidence(self, examples: Any) -> Evidence:
        """There is none.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"the bridge was loaded, and how the concept {self.name!r} was defined is not kept: "
            "set bridge.concepts to the concepts again to fit it further"
        )


def _count_features(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.get_slice("coordinates.scale").get_shape()[0]
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(
            f"{path} is no readable file of a bridge ({error}): copy or fit again"
        ) from error

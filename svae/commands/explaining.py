"""``svae explain``: a network, a layer and images in; pictures and numbers out."""

import importlib
import json
import logging
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from torch import nn

from svae.bridges import Frozen, InvarianceBridge
from svae.bridges.files import restore_invariance
from svae.data import ArrayData, ImageFolder, choose
from svae.data.choosing import NAMES
from svae.data.folder import unlabelled_images
from svae.explaining import ExplainSettings, estimated_seconds
from svae.profiling import layer_profile, sensible_layers
from svae.saving import read_json, writable

__all__ = ["explain_command", "explained"]

logger = logging.getLogger("svae")
_DESCRIPTION = "explain.json"
# What another command needs to open the network and its images again.
_ASKED = ("model", "data", "data_root", "size", "channels", "mean", "std", "seed")


def explain_command(options: Namespace) -> dict[str, Any]:
    """Explains what the options describe; gives what ``metrics.json`` holds.

    Raises:
        SystemExit: If the model cannot be imported or called.
    """
    import torch

    from svae import plots

    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    started = time.perf_counter()
    out = writable(options.out)
    data = _images(options)
    shown = data.test.floats(limit=3)
    model = _model(options.model)
    first = (options.layer or [next((name for name, _ in model.named_modules() if name), "")])[0]
    frozen = Frozen(model, first, x_shape=data.x_shape, preprocess=_preprocess(options))
    layers = tuple(options.layer or sensible_layers(frozen, shown))
    settings = ExplainSettings(
        n_code=options.code,
        autoencoder_steps=options.autoencoder_steps,
        bridge_steps=options.steps,
        adversarial_weight=options.adversarial,
        principal=options.principal,
    )
    seconds = estimated_seconds(frozen, data, settings, len(layers))
    logger.info(
        f"{len(data.train)} training images of shape {data.x_shape}; layers {', '.join(layers)}: "
        f"about {max(1, round(seconds / 60))} min, less what was kept from before"
    )
    profile = layer_profile(
        frozen, data, layers, settings=settings, seed=options.seed, cache=options.cache
    )
    asked = {name: value for name, value in vars(options).items() if name in _ASKED}
    asked["layers"] = list(layers)
    (out / _DESCRIPTION).write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    for name, bridge in profile.bridges.items():
        bridge.save(out / "layers" / name)
    metrics: dict[str, Any] = {"dataset": data.name, "seed": options.seed, **profile.flat()}
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (out / "profile.md").write_text(profile.table(), encoding="utf-8")
    logger.info("answers kept by plain reconstructions: %.3f\n", profile.reconstructed.value)
    logger.info(profile.table())
    plots.save(plots.profile(profile), out / "profile.png")
    plots.save(plots.layer_invariances(profile.bridges, shown), out / "invariances.png")
    last = profile.bridges[layers[-1]]
    with torch.no_grad():
        plots.save(plots.swap_grid(last, data.test.floats(limit=6)), out / "swaps.png")
    last.save(out)
    logger.info("%.0f s; everything is in %s/", metrics["seconds_total"], out)
    return metrics


def explained(folder: Path) -> tuple[dict[str, InvarianceBridge], ArrayData] | None:
    """Bridges by layer, and the images, of a folder that ``svae explain`` wrote.

    Args:
        folder: Its ``--out``.

    Returns:
        None where the folder is another command's.

    Raises:
        SystemExit: If the model cannot be imported or called.
    """
    path = folder / _DESCRIPTION
    if not path.exists():
        return None
    options = Namespace(**read_json(path))
    data, model = _images(options), _model(options.model)
    bridges = {}
    for layer in options.layers:
        frozen = Frozen(model, layer, x_shape=data.x_shape, preprocess=_preprocess(options))
        bridges[layer] = restore_invariance(folder / "layers" / layer, frozen)
    return bridges, data


def _model(place: str) -> nn.Module:
    """What ``package.module:name`` names: a module, or a function that gives one."""
    module_name, _, name = place.partition(":")
    if not name:
        raise SystemExit(f"--model is {place!r}, expected package.module:function, as nets:load")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"--model {place}: {error}. Run from the folder that holds {module_name}, or install "
            "its package."
        ) from error
    model = found() if callable(found) and not isinstance(found, nn.Module) else found
    if not isinstance(model, nn.Module):
        raise SystemExit(
            f"--model {place} gives a {type(model).__name__}, expected a torch module or a "
            "function without arguments that returns one"
        )
    return model


def _images(options: Namespace) -> ArrayData:
    if options.data in NAMES:
        return choose(options.data, options.data_root, seed=options.seed)
    root = Path(options.data)
    where: dict[str, Any] = {"size": options.size, "channels": options.channels}
    by_class = root.is_dir() and sum(path.is_dir() for path in root.iterdir()) > 1
    read = ImageFolder if by_class else unlabelled_images
    return read(root, seed=options.seed, strict=False, **where)


def _preprocess(options: Namespace) -> nn.Module | None:
    if options.mean is None and options.std is None:
        return None
    from torchvision.transforms import Normalize

    mean, std = options.mean or [0.0], options.std or [1.0]
    n = max(len(mean), len(std))
    return Normalize(mean * (n // len(mean)), std * (n // len(std)))

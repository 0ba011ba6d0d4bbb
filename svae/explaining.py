"""From a trained network and inputs to what its layers ignore: one call.

An autoencoder is trained once for a network and a data set, beside it one flow for each layer that
is asked about. Both are kept by a hash of everything that they depend on, so that another layer
costs its own flow only, and the same question nothing.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from svae.bridges.adversarial import Adversarial
from svae.bridges.autoencoder import Autoencoder, CodeNetwork, Perceptual, Redrawing
from svae.bridges.fibre import InvarianceObjective
from svae.bridges.files import restore_invariance
from svae.bridges.frozen import Frozen
from svae.bridges.invariance import CodeDensity, InvarianceBridge
from svae.bridges.linear import PrincipalAutoencoder, TableAutoencoder
from svae.caching import cache_folder, kept, key_of
from svae.data import ArrayData, as_data
from svae.factorization import in_batches
from svae.saving import digest_of, load_weights, save_weights
from svae.training import Recipe, fit_steps

__all__ = [
    "ExplainSettings",
    "InputScaling",
    "check_scaling",
    "estimated_seconds",
    "explain",
    "fit_autoencoder",
    "fit_bridge",
    "fit_density",
    "open_for",
]

logger = logging.getLogger("svae")

RECIPE = 3  # part of every key: raise it with every change that alters what is trained
_ANSWERED = 64  # examples whose answers tell networks apart
_CHECKED = 1000  # examples that the scaling of the input is checked on


class InputScaling(UserWarning):
    """The network answers few labels right: it may want other numbers than it gets."""


@dataclass(frozen=True)
class ExplainSettings:
    """How long and how finely a network is explained.

    Args:
        n_code: Code dims of the autoencoder.
        autoencoder_steps: Steps of its training.
        bridge_steps: Steps of the flow of each layer.
        perceptual_weight: Of what the network sees in a reconstruction, against its pixels.
        adversarial_weight: Of a critic that the reconstructions of pictures must fool; 0 trains
            without one, as rows are.
        principal: Take a :class:`svae.bridges.PrincipalAutoencoder`, which natural pictures need,
            and some hundred code dims for it.
        noise: On codes, in standard deviations: one for all layers, so that they compare.
        fibre_weight: Of the distance between what a layer sees in a draw and what it should,
            against how far draws are moved to get there; 0 moves none.
        bridge_learning_rate: Peak of the flows' one-cycle schedule; lower for more code dims.
        batch_size: Of the autoencoder; flows take twice as many.

    Raises:
        ValueError: If a number is out of range.
    """

    n_code: int = 64
    autoencoder_steps: int = 4000
    bridge_steps: int = 2000
    perceptual_weight: float = 0.1
    adversarial_weight: float = 0.0
    principal: bool = False
    noise: float = 0.05
    fibre_weight: float = 30.0
    bridge_learning_rate: float = 5e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        whole = (self.n_code, self.autoencoder_steps, self.bridge_steps, self.batch_size)
        weights = (self.perceptual_weight, self.adversarial_weight, self.noise, self.fibre_weight)
        if min(whole) < 1 or min(weights) < 0 or self.bridge_learning_rate <= 0:
            raise ValueError(
                "numbers of dims and steps start at 1, weights at 0, and a learning rate is more "
                f"than 0, got {self}"
            )

    @classmethod
    def natural(cls) -> "ExplainSettings":
        """Settings of a short run on natural pictures.

        Of 15,000 of them no flow of this size learns how they look given a layer.
        """
        return cls(
            n_code=256,
            principal=True,
            autoencoder_steps=300,
            bridge_steps=600,
            bridge_learning_rate=1e-3,
            noise=0.1,
        )

    @property
    def of_autoencoder(self) -> "ExplainSettings":
        """The same for the autoencoder, whatever the flows are: what it is kept by."""
        plain = ExplainSettings()
        return replace(
            self,
            bridge_steps=plain.bridge_steps,
            noise=plain.noise,
            fibre_weight=plain.fibre_weight,
            bridge_learning_rate=plain.bridge_learning_rate,
        )


def explain(
    frozen: Frozen,
    data: object,
    *,
    settings: ExplainSettings | None = None,
    autoencoder: nn.Module | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    **trainer: Any,
) -> InvarianceBridge:
    """What a layer of a frozen network ignores, as a factorization.

    Args:
        frozen: The network, opened at the layer.
        data: Data module, torch Dataset of (x, y), or a tuple (x, y) of tensors; labels are only
            used to check that the network gets the numbers that it wants.
        settings: How long and how finely.
        autoencoder: A fitted one of your own; else one is trained and kept.
        seed: Of weights, batches and noise.
        cache: Folder of what was trained before; None takes ``$SVAE_CACHE``, else
            ``~/.cache/svae``.
        trainer: Keywords of :class:`pytorch_lightning.Trainer`.

    Returns:
        The fitted bridge, in evaluation mode. ``svae.resample_nuisance(bridge, x)`` draws inputs
        that the layer cannot tell from ``x``.

    Warns:
        InputScaling: If the network's answers have little to do with the labels.

    Example:
        >>> bridge = svae.explain(svae.Frozen(net, "layer3"), data)  # doctest: +SKIP
    """
    data = as_data(data, seed=seed)
    open_for(frozen, data)
    check_scaling(frozen, data)
    return fit_bridge(
        frozen,
        data,
        settings=settings,
        autoencoder=autoencoder,
        seed=seed,
        cache=cache,
        **trainer,
    )


def fit_bridge(
    frozen: Frozen,
    data: object,
    *,
    settings: ExplainSettings | None = None,
    autoencoder: nn.Module | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    **trainer: Any,
) -> InvarianceBridge:
    """What :func:`explain` does, without looking at the network's answers first."""
    settings = settings or ExplainSettings()
    data = as_data(data, seed=seed)
    _check_trainer(trainer)
    open_for(frozen, data)
    coder = autoencoder or fit_autoencoder(
        frozen, data, settings=settings, seed=seed, cache=cache, **trainer
    )
    key = content(frozen, data, settings, seed, autoencoder)
    key |= {"layer": frozen.layer, "tokens": frozen.tokens}
    folder = cache_folder(cache) / f"bridge-{key_of(key)}"

    def make() -> InvarianceBridge:
        with seeded(seed):
            n_refine = 3 if settings.fibre_weight else 0
            bridge = InvarianceBridge(frozen, coder, n_refine=n_refine)
        objective = InvarianceObjective(settings.noise, settings.fibre_weight)
        fit_flow(bridge, data, settings, seed, trainer, objective)
        return bridge

    return kept(
        folder / "model.json",
        read=lambda: restore_invariance(folder, frozen, coder),
        make=make,
        write=lambda bridge: bridge.save(folder),
    )


def fit_autoencoder(
    frozen: Frozen,
    data: object,
    *,
    settings: ExplainSettings | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    **trainer: Any,
) -> CodeNetwork:
    """The autoencoder that shows what the layers of a network ignore; one for all of its layers.

    It is trained on pixels and on what the network's last feature map (or hidden layer) sees in
    them, so that a reconstruction keeps the network's answer.

    Args:
        frozen: The network, opened at any layer.
        data: As in :func:`explain`.
        settings: How long and how finely.
        seed: Of weights, batches and noise.
        cache: Folder of what was trained before.
        trainer: Keywords of :class:`pytorch_lightning.Trainer`.
    """
    settings = settings or ExplainSettings()
    data = as_data(data, seed=seed)
    _check_trainer(trainer)
    open_for(frozen, data)
    with seeded(seed):
        autoencoder = new_autoencoder(data, settings)
    path = cache_folder(cache) / (
        f"autoencoder-{key_of(content(frozen, data, settings.of_autoencoder, seed))}.safetensors"
    )

    def read() -> CodeNetwork:
        load_weights(autoencoder, path)
        return autoencoder.eval()

    def make() -> CodeNetwork:
        trained = _with_losses(autoencoder, frozen, settings)
        steps, recipe = settings.autoencoder_steps, Recipe(learning_rate=trained.learning_rate)
        _fit(trained, data, steps, settings.batch_size, seed, trainer, recipe)
        return autoencoder.eval()

    return kept(path, read, make, write=lambda made: save_weights(made, path))


def new_autoencoder(data: ArrayData, settings: ExplainSettings) -> CodeNetwork:
    """An autoencoder of pictures, or of rows; no row has more code dims than numbers."""
    n_code = min(settings.n_code, int(torch.Size(data.x_shape).numel()))
    if len(data.x_shape) != 3:
        return TableAutoencoder(data.x_shape, n_code)
    if settings.principal:
        return PrincipalAutoencoder(data.x_shape, n_code)
    return Autoencoder(data.x_shape, settings.n_code)


def _with_losses(autoencoder: CodeNetwork, frozen: Frozen, settings: ExplainSettings) -> Redrawing:
    """The autoencoder within the further losses that the settings ask for."""
    trained: Redrawing = autoencoder
    if settings.perceptual_weight and frozen.differentiable:
        seen = frozen.at(_perceptual_layer(frozen))
        trained = Perceptual(trained, seen, settings.perceptual_weight)
    if settings.adversarial_weight:
        trained = Adversarial(trained, settings.adversarial_weight)
    return trained


def open_for(frozen: Frozen, data: ArrayData) -> None:
    """Runs the network on two of the inputs, which tells it their shape where it was not said.

    Raises:
        ValueError: If the network does not take such inputs.
    """
    try:
        with torch.no_grad():
            frozen.representation(data.train.floats(limit=2))
    except RuntimeError as error:
        raise ValueError(
            f"the network does not take the data's inputs of shape {data.x_shape}: {error}. Grey "
            "pictures for a colour network, or another size? preprocess= may turn one into the "
            "other."
        ) from error


def check_scaling(frozen: Frozen, data: ArrayData) -> None:
    """Warns where the network's answers fit the labels badly and other numbers would do better."""
    examples = data.validation if len(data.validation) else data.train
    labels = examples.marked[:_CHECKED]
    x, known = examples.floats(limit=_CHECKED), labels >= 0
    # Rows have no range that a network could expect another of.
    if not data.bounded or not bool(known.any()):
        return

    def right(logits: Tensor) -> float:
        return float((logits.argmax(1) == labels)[known].float().mean())

    logits = in_batches(frozen.predict, x)
    if logits.shape[1] != data.n_classes:
        return
    found = right(logits)
    if found >= max(0.5, 1.5 / data.n_classes):
        return
    scaled = {"255 x": 255 * x, "2 x - 1": 2 * x - 1, "1 - x": 1 - x}
    others = {name: right(in_batches(frozen.predict, other)) for name, other in scaled.items()}
    best = max(others, key=lambda name: others[name])
    if found < 0.5 and others[best] > 1.5 * found + 0.1:
        hint = f"; for {best} it would be {others[best]:.0%}"
    elif found < 1.5 / data.n_classes:
        hint = ", as by chance"
    else:
        return
    warnings.warn(
        f"the network answers {found:.0%} of the labels right for x in [0, 1]{hint}. Say how it "
        "wants its input, svae.Frozen(model, layer, preprocess=...), and check the order of the "
        "classes",
        InputScaling,
        stacklevel=3,
    )


def fit_density(
    frozen: Frozen,
    data: ArrayData,
    coder: nn.Module,
    *,
    settings: ExplainSettings,
    autoencoder: nn.Module | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    **trainer: Any,
) -> CodeDensity:
    """The density of the codes that no layer tells anything of.

    Args:
        frozen: The network, opened at any layer.
        data: What is explained.
        coder: The autoencoder.
        settings: How long and how finely.
        autoencoder: The autoencoder again where it is one of the user's own.
        seed: Of weights, batches and noise.
        cache: Folder of what was trained before.
        trainer: Keywords of :class:`pytorch_lightning.Trainer`.
    """
    with seeded(seed):
        code = coder.encode(data.test.floats(limit=2))  # pyright: ignore[reportCallIssue]
        density = CodeDensity(coder, code.shape[1])
    key = key_of(content(frozen, data, settings, seed, autoencoder))
    path = cache_folder(cache) / f"density-{key}.safetensors"

    def read() -> CodeDensity:
        load_weights(density.flow, path)
        return density.eval()

    def make() -> CodeDensity:
        objective = InvarianceObjective(settings.noise, 0.0)
        fit_flow(density, data, settings, seed, trainer, objective)
        return density

    return kept(path, read, make, write=lambda made: save_weights(made.flow, path))


def estimated_seconds(
    frozen: Frozen, data: ArrayData, settings: ExplainSettings, n_layers: int
) -> float:
    """How long explaining ``n_layers`` layers may take here, from a few timed steps.

    Args:
        frozen: The network, opened at any layer.
        data: What is explained.
        settings: How long and how finely.
        n_layers: How many layers.
    """
    with seeded(0):
        autoencoder = new_autoencoder(data, settings)
        x = data.train.floats(limit=settings.batch_size)
        trained = _with_losses(autoencoder, frozen, settings)
        alone = _with_losses(autoencoder, frozen, replace(settings, adversarial_weight=0.0))
        encode = _timed(lambda: autoencoder.encode(x).sum().backward())
        step = _timed(lambda: trained.loss(x)[0].backward())
        drawn = _timed(lambda: alone.loss(x)[0].backward())  # a flow faces no critic
        with torch.no_grad():
            predict = _timed(lambda: frozen.predict(x))
    # A flow decodes as many images as a batch of the autoencoder has, and backwards too.
    flow = drawn + 0.02
    passes = (len(data.train) / settings.batch_size) * (predict + encode / 3)
    return settings.autoencoder_steps * step + n_layers * (settings.bridge_steps * flow + passes)


def _timed(step: Callable[[], object]) -> float:
    step()
    started = time.perf_counter()
    for _ in range(3):
        step()
    return (time.perf_counter() - started) / 3


def fit_flow(
    model: InvarianceBridge | CodeDensity,
    data: ArrayData,
    settings: ExplainSettings,
    seed: int,
    trainer: dict[str, Any],
    objective: InvarianceObjective,
) -> None:
    """Fits a flow over codes for as long as the settings say."""
    steps, recipe = settings.bridge_steps, Recipe(learning_rate=settings.bridge_learning_rate)
    _fit(model, data, steps, 2 * settings.batch_size, seed, trainer, recipe, objective)


def _check_trainer(trainer: dict[str, Any]) -> None:
    lengths = {"max_epochs", "max_steps", "min_epochs", "min_steps", "limit_train_batches"}
    if given := lengths & set(trainer):
        raise ValueError(
            f"{', '.join(sorted(given))} cannot be given: how long it takes is in "
            "settings=ExplainSettings(autoencoder_steps=..., bridge_steps=...), by which what was "
            "fitted is kept"
        )


def _fit(
    model: nn.Module,
    data: ArrayData,
    steps: int,
    batch_size: int,
    seed: int,
    trainer: dict[str, Any],
    recipe: Recipe,
    objective: nn.Module | None = None,
) -> None:
    started = time.perf_counter()
    fit_steps(
        model, data, steps, batch_size, objective=objective, recipe=recipe, seed=seed, **trainer
    )
    kind = type(model).__name__
    logger.info("%s: %d steps in %.0f s", kind, steps, time.perf_counter() - started)


def _perceptual_layer(frozen: Frozen) -> str:
    """The last feature map; where there is none, what comes before the answer."""
    names = frozen.outputs(torch.zeros(2, *frozen.known_shape()))
    maps = [name for name, value in names.items() if value.dim() == 4 and value.shape[2] > 1]
    return maps[-1] if maps else list(names)[-2 if len(names) > 1 else -1]


def content(
    frozen: Frozen,
    data: ArrayData,
    settings: ExplainSettings,
    seed: int,
    autoencoder: nn.Module | None = None,
) -> dict[str, Any]:
    """What the result depends on; an autoencoder of the user's own counts by its weights."""
    with torch.no_grad():
        answers = frozen.predict(data.train.floats(limit=_ANSWERED))
    return {
        "recipe": RECIPE,
        "network": frozen.fingerprint,
        # What is no weight, such as a black box or the code of a network, shows here.
        "answers": digest_of({"answers": answers}),
        "data": digest_of({"train": data.train.x, "validation": data.validation.x}),
        "settings": asdict(settings),
        "seed": seed,
        "autoencoder": None if autoencoder is None else digest_of(autoencoder.state_dict()),
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """First weights of their own, whose draw leaves the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

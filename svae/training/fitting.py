"""The one entry to training, for every family of models."""

from functools import partial, singledispatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
from torch import Tensor, nn

from svae.bridges.autoencoder import Redrawing
from svae.bridges.concepts import ConceptBridge
from svae.bridges.fibre import InvarianceObjective
from svae.bridges.invariance import CodeDensity, InvarianceBridge
from svae.bridges.objective import ConceptObjective
from svae.bridges.translation import (
    MeanTranslator,
    TranslationBridge,
    TranslationObjective,
)
from svae.bridges.translator import Translator
from svae.compilation import Loss, Values
from svae.data import ArrayData, as_data
from svae.elbo import SupervisedELBO
from svae.models import SVAE
from svae.saving import writable
from svae.training.bridging import (
    BridgeModule,
    CodeInputs,
    Inputs,
    PixelInputs,
    RepresentationInputs,
    coded,
    represented,
)
from svae.training.recipe import Recipe
from svae.training.running import lasting, quiet, run, trainer_settings
from svae.training.supervised import SVAEModule

__all__ = ["Task", "fit", "fit_steps", "task_of", "training_of"]


@singledispatch
def training_of(
    model: object,
    data: ArrayData,
    objective: nn.Module | None,
    recipe: Recipe | None,
    seed: int,
    compile: Literal["auto"] | bool = "auto",
) -> tuple[pl.LightningModule, ArrayData]:
    """The training of one family of models, and the data as it takes them.

    A family that is trained in one phase by one loss registers with :func:`task_of` instead.
    """
    task = task_of(model, data, objective, seed)
    assert isinstance(model, nn.Module)
    module = BridgeModule(model, task.loss, task.inputs, task.objective, recipe, seed, compile)
    return module, task.data


@training_of.register
def _(
    model: SVAE,
    data: ArrayData,
    objective: SupervisedELBO | None,
    recipe: Recipe | None,
    seed: int,
    compile: Literal["auto"] | bool = "auto",
) -> tuple[pl.LightningModule, ArrayData]:
    return SVAEModule(model, objective, recipe, seed, compile), data


class Task(NamedTuple):
    """What one loss is computed from, step by step.

    Attributes:
        loss: From the tensors of a step to the loss and its named values.
        inputs: From a batch to those tensors.
        data: The data as the model takes them.
        objective: What ``loss`` reads beside the model, if anything.
    """

    loss: Loss
    inputs: Inputs
    data: ArrayData
    objective: nn.Module | None = None


@singledispatch
def task_of(model: object, data: ArrayData, objective: nn.Module | None, seed: int) -> Task:
    """What a model is trained by, built from the data where it has to be.

    Another family registers its own.
    """
    raise TypeError(
        f"cannot fit {type(model).__name__}: expected an svae.SVAE, a svae.ConceptBridge, or a "
        "svae.bridges.Autoencoder or Reconstruction"
    )


@task_of.register
def _(model: Redrawing, data: ArrayData, objective: None, seed: int) -> Task:
    if model.x_shape != data.x_shape:
        raise ValueError(
            f"the network is built for x of shape {model.x_shape}, the data have {data.x_shape}. "
            "Build it with the data's shape."
        )
    model.start(data.train)
    return Task(model.loss, PixelInputs(), data)


@task_of.register
def _(
    model: ConceptBridge, data: ArrayData, objective: ConceptObjective | None, seed: int
) -> Task:
    seen, prepared = represented(model, data, seed)
    objective = objective or ConceptObjective()
    inputs = RepresentationInputs(prepared.banks)
    return Task(inputs.loss(model, objective), inputs, seen, objective)


@task_of.register
def _(
    model: TranslationBridge, data: ArrayData, objective: TranslationObjective | None, seed: int
) -> Task:
    return _of_flow(model, data, objective or TranslationObjective(), seed)


@task_of.register
def _(
    model: InvarianceBridge, data: ArrayData, objective: InvarianceObjective | None, seed: int
) -> Task:
    return _of_flow(model, data, objective or InvarianceObjective(), seed)


@task_of.register
def _(model: MeanTranslator, data: ArrayData, objective: None, seed: int) -> Task:
    return _of_codes(model, model.loss, data, None, seed)


def _of_flow(
    model: TranslationBridge, data: ArrayData, objective: TranslationObjective, seed: int
) -> Task:
    """Of a flow, which keeps the noise that its codes are fitted with."""
    task = _of_codes(model, partial(objective, model), data, objective, seed)
    model.code_noise = objective.noise
    return task


def _of_codes(
    model: Translator, loss: Loss, data: ArrayData, objective: nn.Module | None, seed: int
) -> Task:
    """Of codes and representations, which are computed once."""
    _check_trainable(model)
    seen = coded(model, data, seed)
    inputs = CodeInputs(model.shape)
    return Task(inputs.loss(loss), inputs, seen, objective)


@task_of.register
def _(
    model: CodeDensity, data: ArrayData, objective: InvarianceObjective | None, seed: int
) -> Task:
    noise = (objective or InvarianceObjective()).noise

    def loss(code: Tensor, none: Tensor) -> tuple[Tensor, Values]:
        return model.loss(code, noise)

    return Task(loss, CodeInputs(), coded(model, data, seed))


def fit(
    model: nn.Module,
    data: object,
    *,
    objective: nn.Module | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    compile: Literal["auto"] | bool = "auto",
    **trainer: Any,
) -> Path | None:
    """Trains ``model`` and leaves the best weights by validation in it, in evaluation mode.

    Of a model whose losses do not compare between epochs (``model.losses_compare`` is False, as in
    a game against a critic) the last weights are left.

    Args:
        model: What to train: an :class:`svae.SVAE`, a :class:`svae.ConceptBridge`, or a network
            beside one, such as :class:`svae.bridges.Autoencoder`.
        data: Data module, torch Dataset of (x, y), or a tuple (x, y) of tensors.
        objective: Terms and weights; the family's default if None.
        recipe: Learning rates and phases.
        seed: Orders of the batches and noise of every step.
        out: Folder for ``checkpoints/`` and ``logs/`` (CSV and TensorBoard); nothing is kept
            if None.
        resume: Go on from ``out/checkpoints/last.ckpt`` where there is one.
        compile: Whether a step runs from a compiled graph instead of through Pyro's handlers:
            ``"auto"`` where the run is long enough to pay the compilation back, True always, False
            never, for debugging. Results differ by rounding only.
        trainer: Keywords of :class:`pytorch_lightning.Trainer`, such as ``max_epochs=10``,
            ``accelerator="gpu"``, ``devices=2`` or ``precision="bf16-mixed"``.

    Returns:
        The folder of the logs, or None.

    Raises:
        ValueError: If the data do not fit the model, it has nothing left to train, or ``resume``
            has no ``out``.
        NonFiniteLoss: At the first NaN or infinity; checkpoints stay, and the weights are those of
            the best.
        OSError: If ``out`` cannot be written to.
    """
    module_data = as_data(data, seed=seed)
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the interrupted run")
    module, module_data = training_of(model, module_data, objective, recipe, seed, compile)
    _check_trainable(model)
    with TemporaryDirectory() as scratch:
        folder = writable(scratch if out is None else out)
        with quiet():
            runner = pl.Trainer(**trainer_settings(folder, trainer, keep=out is not None))
        run(runner, module, module_data, folder, resume)
        log_dir = runner.loggers[0].log_dir if runner.loggers else None
    return None if log_dir is None else Path(log_dir)


def _check_trainable(model: nn.Module) -> None:
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(
            f"this {type(model).__name__} has no parameters to train: requires_grad is off for "
            "all. A bridge switches off those of the models that it stands between; fit them "
            "before, or say model.requires_grad_(True) and fit the bridge again afterwards."
        )


def fit_steps(
    model: nn.Module,
    data: ArrayData,
    steps: int,
    batch_size: int,
    *,
    objective: nn.Module | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    **trainer: Any,
) -> None:
    """Trains for about that many steps, whatever the size of the set.

    Args:
        model: As in :func:`fit`, as all that follows.
        data: A data module, whose batch size is as it was afterwards.
        steps: Steps in all, at least one; whole epochs where there are several.
        batch_size: Examples per batch, at most the whole set.
        objective: Terms and weights.
        recipe: Learning rates and phases.
        seed: Orders of the batches and noise of every step.
        trainer: Keywords of :class:`pytorch_lightning.Trainer`, which win over what the steps ask
            for.
    """
    with data.batches_of(min(batch_size, len(data.train))):
        how = {**lasting(data, steps), **trainer}
        fit(model, data, objective=objective, recipe=recipe, seed=seed, **how)

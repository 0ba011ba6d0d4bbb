"""The one entry to training, for every family of models."""

from functools import singledispatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytorch_lightning as pl
from torch import nn

from svae.data import as_data
from svae.elbo import SupervisedELBO
from svae.models import SVAE
from svae.saving import writable
from svae.training.recipe import Recipe
from svae.training.running import quiet, run, trainer_settings
from svae.training.supervised import SVAEModule

__all__ = ["fit", "lightning_module"]


@singledispatch
def lightning_module(
    model: object,
    objective: nn.Module | None,
    recipe: Recipe | None,
    seed: int,
    compile: Literal["auto"] | bool = "auto",
) -> pl.LightningModule:
    """The training of one family of models; another family registers its own."""
    raise TypeError(f"cannot fit {type(model).__name__}: expected an svae.SVAE")


@lightning_module.register
def _(
    model: SVAE,
    objective: SupervisedELBO | None,
    recipe: Recipe | None,
    seed: int,
    compile: Literal["auto"] | bool = "auto",
) -> SVAEModule:
    return SVAEModule(model, objective, recipe, seed, compile)


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

    Args:
        model: What to train, for example an :class:`svae.SVAE`.
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
        ValueError: If the data do not fit the model, or ``resume`` has no ``out``.
        NonFiniteLoss: At the first NaN or infinity; checkpoints stay, and the weights are those of
            the best.
        OSError: If ``out`` cannot be written to.
    """
    module_data = as_data(data, seed=seed)
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the interrupted run")
    module = lightning_module(model, objective, recipe, seed, compile)
    with TemporaryDirectory() as scratch:
        folder = writable(scratch if out is None else out)
        with quiet():
            runner = pl.Trainer(**trainer_settings(folder, trainer, keep=out is not None))
        run(runner, module, module_data, folder, resume)
        log_dir = runner.loggers[0].log_dir if runner.loggers else None
    return None if log_dir is None else Path(log_dir)

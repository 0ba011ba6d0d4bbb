"""A Trainer with our settings, and one run of it."""

import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from svae.data import ArrayData
from svae.training.tally import NonFiniteLoss

__all__ = [
    "PlainProgress",
    "Resumable",
    "check_compile",
    "checkpoints",
    "compiles",
    "load_best",
    "quiet",
    "run",
    "total_steps",
    "trainer_settings",
]

_logger = logging.getLogger("svae")
_LIGHTNING = "pytorch_lightning"
LAST = "last.ckpt"
STEPS_THAT_PAY = 2000  # of one loss: about as many as win back the seconds of a compilation
_UNREADABLE = (
    RuntimeError,
    UnpicklingError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
)
_EXPECTED = (
    "Checkpoint directory .* exists and is not empty",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen parts, on purpose
    "The number of training batches .* is smaller than the logging interval",
    ".*isinstance.treespec, LeafSpec.. is deprecated",
)


class Resumable(pl.Callback):
    """Leaves something to resume from, whenever a run is interrupted.

    An epoch's end writes ``last.ckpt``; before the first one there is what this callback writes,
    the initial weights.

    Args:
        path: The checkpoint that resuming reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the first checkpoint."""
        if not trainer.global_step:
            trainer.save_checkpoint(self.path)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Says where an interrupted run can be taken up."""
        if isinstance(exception, KeyboardInterrupt) and self.path.is_file():
            _logger.warning(
                "interrupted in epoch %d of %s; the same with resume goes on from %s",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                self.path,
            )


class KeptCheckpoint(ModelCheckpoint):
    """One of the two checkpoints of every run, told from those of the user by its class."""


class PlainProgress(pl.Callback):
    """One line an epoch, for logs and pipes."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the epoch before: only now are its means known."""
        if trainer.current_epoch and "validation/loss" in trainer.callback_metrics:
            self._line(trainer, trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the last epoch."""
        self._line(trainer, trainer.current_epoch)

    def _line(self, trainer: pl.Trainer, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        got = trainer.callback_metrics
        names = [name for name in got if name.startswith("train/") and name.endswith("loss")]
        names = [name for name in names if name != "train/label_loss"][-1:]
        names += ["validation/loss", "validation/accuracy"]
        numbers = "  ".join(f"{name} {float(got[name]):.4g}" for name in names if name in got)
        seconds = time.monotonic() - self.started
        sys.stdout.write(f"epoch {epoch}/{trainer.max_epochs}  {numbers}  {seconds:.0f} s\n")
        sys.stdout.flush()


def lasting(data: ArrayData, steps: int) -> dict[str, Any]:
    """Keywords of a Trainer for about that many steps, at least one."""
    per_epoch = max(1, len(data.train) // data.batch_size)
    epochs = max(1, round(steps / per_epoch))
    most = min(per_epoch, max(1, steps // epochs))
    return {"max_epochs": epochs, "limit_train_batches": most}


def trainer_settings(folder: Path, wanted: Mapping[str, Any], keep: bool = True) -> dict[str, Any]:
    """Keywords of a Trainer: ours, overridden by ``wanted``, with our callbacks added.

    Args:
        folder: Where ``checkpoints/`` and ``logs/`` go.
        wanted: Keywords that were asked for.
        keep: Whether logs and checkpoints outlive the run.
    """
    bar = sys.stdout.isatty()
    settings: dict[str, Any] = {
        "max_epochs": 10,
        "gradient_clip_val": 100.0,
        "use_distributed_sampler": False,  # our loaders know their rank
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": bar,
        "logger": False,
    }
    if keep:
        csv = CSVLogger(folder, name="logs")
        settings["logger"] = [csv, TensorBoardLogger(folder, name="logs", version=csv.version)]
    settings |= {name: value for name, value in wanted.items() if value is not None}
    if (strategy := _strategy(settings)) is not None:
        settings["strategy"] = strategy
    callbacks = settings.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    if settings["enable_progress_bar"] and bar:
        # The bar reads its numbers at every refresh, which waits for an accelerator.
        interval = settings.get("log_every_n_steps", 50) if torch.cuda.is_available() else 1
        callbacks.append(RichProgressBar(refresh_rate=interval))
    else:
        callbacks.append(PlainProgress())
    # The best first: the last holds its place. `save_last` writes only when the best improves.
    for name, monitor in (("best", "validation/loss"), ("last", None)):
        checkpoint = KeptCheckpoint(
            folder / "checkpoints",
            filename=name,
            monitor=monitor,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        callbacks.append(checkpoint)
    if keep:
        callbacks.append(Resumable(folder / "checkpoints" / LAST))
    return {**settings, "callbacks": callbacks}


def _strategy(settings: Mapping[str, Any]) -> Any:
    """The strategy of a Trainer; among several processes one that bears parts without gradient.

    In either phase of :class:`SVAEModule` the other phase's parameters have none, and plain DDP
    waits for them forever.
    """
    strategy = settings.get("strategy")
    if strategy in ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook"):
        return f"{strategy}_find_unused_parameters_true"
    if strategy not in (None, "auto"):
        return strategy
    devices = settings.get("devices", "auto")
    several = settings.get("num_nodes", 1) > 1
    if isinstance(devices, list | tuple):
        several |= len(devices) > 1
    elif str(devices) in ("auto", "-1"):
        on_gpu = settings.get("accelerator", "auto") in ("auto", "gpu", "cuda")
        several |= on_gpu and torch.cuda.device_count() > 1
    else:  # "0,1" is a list of devices, "2" and 2 are a number of them
        several |= "," in str(devices) or int(devices) > 1
    return "ddp_find_unused_parameters_true" if several else strategy


def run(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    folder: Path,
    resume: bool = False,
) -> None:
    """Fits, from the last checkpoint if asked, and leaves the best weights in the module."""
    last = folder / "checkpoints" / LAST
    if resume and not last.is_file():
        _logger.warning("nothing to resume: there is no %s, so training starts afresh", last)
        resume = False
    module.train()  # Lightning takes the mode as it is: that of evaluation after an earlier fit
    with quiet():
        try:
            trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
        except NonFiniteLoss:
            load_best(trainer, module)
            raise
        except _UNREADABLE as error:
            if not resume or trainer.global_step or module.global_step:
                raise
            raise ValueError(
                f"cannot resume from {last}: it is damaged or belongs to another architecture "
                f"({type(error).__name__}: {error}). Train without resuming, or with the settings "
                "it was written with."
            ) from error
    load_best(trainer, module)
    trainer.strategy.barrier()  # nobody removes the file while another process reads it
    module.eval()


def total_steps(trainer: pl.Trainer) -> int:
    """Steps of the whole run.

    Raises:
        ValueError: If the run has no end that is known.
    """
    if math.isinf(trainer.estimated_stepping_batches):
        raise ValueError(
            "the schedule of the learning rate needs to know the end: give max_epochs or "
            "max_steps, also beside max_time"
        )
    return int(trainer.estimated_stepping_batches)


def check_compile(compile: object) -> None:
    """Raises a ``ValueError`` unless ``compile`` is ``"auto"``, True or False."""
    if compile not in ("auto", True, False):
        raise ValueError(f'compile must be "auto", True or False, got {compile!r}')


def compiles(compile: Literal["auto"] | bool, n_steps: int) -> bool:
    """Whether so many steps are compiled: where asked for, or where that pays."""
    return compile is True or (compile == "auto" and n_steps >= STEPS_THAT_PAY)


def load_best(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Puts the best weights so far into the module, where there are any.

    Those of the last epoch where the module says that its losses do not compare.
    """
    by_loss, last = checkpoints(trainer)
    best = (by_loss if getattr(module, "losses_compare", True) else last).best_model_path
    if best and Path(best).is_file():
        state = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])


def checkpoints(trainer: pl.Trainer) -> list[ModelCheckpoint]:
    """The checkpoints that every run keeps, the best first; not those of the user."""
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, KeptCheckpoint)]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning says about choices that are made here on purpose."""
    loggers = [
        logging.getLogger(f"{_LIGHTNING}.utilities.rank_zero"),
        logging.getLogger(_LIGHTNING),
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

"""``svae fit``: Lightning's command line over the constructors of model, objective and data."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from svae.data import ArrayData
from svae.saving import writable
from svae.training import SVAEModule, quiet, run, trainer_settings

__all__ = ["FitCLI", "fit_command"]


class FitCLI(LightningCLI):
    """Parses, builds, trains as :func:`svae.fit` does, and saves the model into ``--out``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that are ours."""
        parser.add_argument("--out", default="runs/fit", help="folder of everything written")
        parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
        parser.link_arguments("seed_everything", "model.seed")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Builds the trainer with the settings of :func:`svae.fit`."""
        wanted = {**self.config["trainer"], **kwargs}
        wanted = {k: v for k, v in wanted.items() if v is not None}
        return pl.Trainer(**trainer_settings(writable(self.config["out"]), wanted))


def fit_command(arguments: list[str]) -> SVAEModule:
    """Trains what the arguments describe; gives the trained module."""
    with quiet(), warnings.catch_warnings():
        # Lightning expects its arguments in sys.argv, which also holds our command's name.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        # Lightning builds its parser in a way that jsonargparse is about to rename.
        warnings.simplefilter("ignore", DeprecationWarning)
        cli = _parsed(arguments)
    out = Path(cli.config["out"])
    module = cli.model
    run(cli.trainer, module, cli.datamodule, out, cli.config["resume"])
    if cli.trainer.is_global_zero:
        module.vae.cpu().save(out)
    return module


def _parsed(arguments: list[str]) -> FitCLI:
    return FitCLI(
        SVAEModule,
        ArrayData,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=0,
        # What Lightning's own default would override in trainer_settings.
        trainer_defaults={"max_epochs": 10, "use_distributed_sampler": False},
        run=False,
        args=arguments,
    )

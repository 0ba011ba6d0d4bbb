"""The command ``svae``: light until a command is chosen, so that its help is instant."""

import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

HELP = """\
usage: svae [-h] [--version] COMMAND ...

Supervised VAEs: find out, and show, what a model ignores.

commands:
  fit       train a supervised VAE from one YAML file or from options

svae COMMAND --help says more. The same commands run as `python -m svae COMMAND`.
"""

FIT_HELP = """\
usage: svae fit [--config FILE] [--out DIR] [--resume] [--print_config] [options]

Trains a supervised VAE and writes model, checkpoints and logs into --out, so that
svae.load(DIR) gives the trained model.

  --config FILE         YAML with the options below; `class_path` names the classes
  --out DIR             folder of everything written (default: runs/fit)
  --resume              go on from DIR/checkpoints/last.ckpt
  --seed_everything N   seed of weights, batches and noise (default: 0)
  --model.vae ...       the model: class_path svae.models.SVAE.for_images, ...
  --model.objective ... weights of the terms: svae.elbo.SupervisedELBO
  --model.recipe ...    learning rates and phases: svae.training.Recipe
  --data ...            the data: class_path svae.data.mnist.MNIST, ...
  --trainer ...         keywords of pytorch_lightning.Trainer: --trainer.max_epochs 10
  --print_config        print the whole configuration as YAML and stop
  --help-all            every option with its type and default

example: svae fit --config experiments/mnist_svae.yaml --trainer.max_epochs 2
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {"fit": _fit}
    if not given or given[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if given else 2
    if given[0] == "--version":
        import svae

        print(svae.__version__)
        return 0
    if given[0] not in commands:
        print(
            f"svae: unknown command {given[0]!r}; there is: {', '.join(commands)}", file=sys.stderr
        )
        return 2
    return commands[given[0]](given[1:])


def _fit(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(FIT_HELP, end="")
        return 0
    from svae.commands.fitting import fit_command

    fit_command(["--help" if argument == "--help-all" else argument for argument in arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main())

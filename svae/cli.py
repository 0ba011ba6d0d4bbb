"""The command ``svae``: light until a command is chosen, so that its help is instant."""

import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

HELP = """\
usage: svae [-h] [--version] COMMAND ...

Supervised VAEs: find out, and show, what a model ignores.

commands:
  fit       train a supervised VAE from one YAML file or from options
  audit     measure a trained model, with intervals, and fail where it is not good enough
  report    write one offline page about a trained model
  explain   show what the layers of a trained network ignore

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

AUDIT_EPILOG = """\
Writes audit.json into the folder and prints the numbers. Exits with 1 where a condition of
--fail-if holds, so that continuous integration stops, and with 2 where one cannot be read.

example: svae audit runs/mnist_svae --fail-if "flip_rate > 0.02" "test_accuracy < 0.98"
"""

EXPLAIN_EPILOG = """\
Writes invariances.png (inputs that each layer cannot tell from a real one), profile.png and
profile.md (what each layer knows and ignores), swaps.png, metrics.json, the bridge of each layer
in layers/, and that of the last in DIR, svae.load(DIR, frozen=...). The network is never changed.
`svae audit DIR` certifies what was explained, `svae report DIR` makes a page of it.

example: svae explain --model nets:load --layer layer3 fc --data images/ --out report/
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "fit": _fit,
        "audit": _audit,
        "report": _report,
        "explain": _explain,
    }
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


def _audit(arguments: list[str]) -> int:
    import argparse

    options = argparse.ArgumentParser(
        "svae audit",
        description="Numbers of a trained model, each with its interval: what it ignores, leaks "
        "and keeps.",
        epilog=AUDIT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("run", help="folder of a trained model, as svae.load reads it")
    add(
        "--data",
        help="mnist, fashion, kmnist, digits, cifar10, dsprites; else what metrics.json names",
    )
    add("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    add("--fail-if", nargs="*", default=[], metavar="CONDITION", help="such as 'flip_rate > 0.02'")
    add("--compare", metavar="RUN", help="folder of another audited model")
    add("--n-test", type=int, help="test examples used, at most")
    add("--seed", type=int, default=0, help="of every draw")
    add("--again", action="store_true", help="measure anew where audit.json is there already")
    parsed = options.parse_args(arguments)
    from svae.commands.auditing import audit_command

    return audit_command(parsed)


def _report(arguments: list[str]) -> int:
    import argparse

    options = argparse.ArgumentParser(
        "svae report",
        description="One offline page that says and shows what a trained model ignores.",
        epilog="example: svae report runs/mnist_svae --out report/",
    )
    add = options.add_argument
    add("run", help="folder of a trained model, as svae.load reads it")
    add("--out", help="folder of everything written; RUN/report if left out")
    add(
        "--data",
        help="mnist, fashion, kmnist, digits, cifar10, dsprites; else what metrics.json names",
    )
    add("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    add("--seed", type=int, default=0, help="of every draw")
    parsed = options.parse_args(arguments)
    from svae.commands.auditing import report_command

    report_command(parsed)
    return 0


def _explain(arguments: list[str]) -> int:
    import argparse

    options = argparse.ArgumentParser(
        "svae explain",
        description="What the layers of a trained network ignore.",
        epilog=EXPLAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("--model", required=True, help="package.module:name of a torch module, or of its loader")
    add("--layer", nargs="*", metavar="NAME", help="from input to logits; a handful if left out")
    add(
        "--data",
        required=True,
        help="folder of images, with one sub-folder per class or without"
        " any, or mnist, fashion, kmnist, cifar10, dsprites, digits",
    )
    add("--data-root", help="where a set that is named lies; else $SVAE_DATA, else data/")
    add("--out", default="runs/explain", help="folder of everything written")
    add("--size", type=int, default=64, help="height and width of images from a folder")
    add("--channels", type=int, default=3, choices=[1, 3], help="of images from a folder")
    add("--mean", type=float, nargs="*", help="what the network wants subtracted, per channel")
    add("--std", type=float, nargs="*", help="what the network wants divided by, per channel")
    add("--code", type=int, default=64, help="code dims of the autoencoder")
    add("--autoencoder-steps", type=int, default=4000, help="of its training")
    add("--steps", type=int, default=2000, help="of each layer's flow")
    add("--adversarial", type=float, default=0.0, help="weight of a critic of reconstructions")
    add("--principal", action="store_true", help="code of principal components: natural pictures")
    add("--seed", type=int, default=0)
    add("--cache", help="folder of what was fitted before; else $SVAE_CACHE, else ~/.cache/svae")
    parsed = options.parse_args(arguments)
    from svae.commands.explaining import explain_command

    explain_command(parsed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

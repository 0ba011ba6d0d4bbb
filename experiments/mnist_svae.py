"""What does a supervised VAE of MNIST ignore?

Question: can a latent be split so that one part holds the digit and the other everything else, and
what changes when only the other part is resampled?
Expectation: slant, thickness and width move, the digit stays (an independent network agrees for
more than 98.5 % of the pictures), and no probe finds the digit in the resampled part.
Cost: about ten minutes on two CPU cores, under two minutes on the embedded digits.

    python experiments/mnist_svae.py                      # MNIST, else scikit-learn's digits
    python experiments/mnist_svae.py --preset best        # longer, with augmentation
    python experiments/mnist_svae.py --dataset digits --max-epochs 1 --quick
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Settings that belong together.

    Args:
        max_epochs: Passes over the training set, both phases together.
        flow_share: Share of the passes that fit the style flow.
        width: Channels of the first convolution.
        batch_size: Examples per step.
        augment: Whether training images are rotated, shifted and scaled a little.
    """

    max_epochs: int
    flow_share: float
    width: int
    batch_size: int
    augment: bool


PRESETS = {
    ("mnist", "default"): Preset(12, 7 / 12, 32, 128, augment=False),
    ("mnist", "best"): Preset(12, 1 / 3, 32, 128, augment=True),
    ("digits", "default"): Preset(30, 0.2, 32, 32, augment=False),
    ("digits", "best"): Preset(80, 0.2, 32, 32, augment=True),
}


def parser() -> argparse.ArgumentParser:
    """The command's options; those of all experiments come first."""
    options = argparse.ArgumentParser(
        description="Trains a supervised VAE, measures it and draws its invariances."
    )
    options.add_argument(
        "--dataset", default="auto", choices=["auto", "mnist", "fashion", "kmnist", "digits"]
    )
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--out", default="runs/mnist_svae", help="folder of everything written")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-epochs", type=int, help="the preset's if not given")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--preset", default="default", choices=["default", "best"])
    options.add_argument("--head", default="gaussian", choices=["gaussian", "linear", "mlp"])
    options.add_argument(
        "--style-flow", default="second-stage", choices=["second-stage", "joint", "none"]
    )
    options.add_argument(
        "--penalty", default="none", choices=["none", "adversary", "mmd", "hsic", "swap", "tc"]
    )
    options.add_argument("--penalty-weight", type=float, default=10.0)
    options.add_argument(
        "--n-labels",
        type=int,
        help="labels kept, all other images are unlabelled; all if not given",
    )
    options.add_argument("--beta-class", type=float, help="10, and 1 with --n-labels")
    options.add_argument("--beta-style", type=float, default=0.3)
    options.add_argument("--label-weight", type=float, default=50.0)
    options.add_argument("--n-class", type=int, default=8)
    options.add_argument("--n-nuisance", type=int, default=16)
    options.add_argument("--precision", default="32-true", help="32-true or bf16-mixed")
    options.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    options.add_argument("--quick", action="store_true", help="few draws and pictures, for tests")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, measures, draws; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()
    if options.max_epochs is not None and options.max_epochs < 1:
        raise SystemExit(f"--max-epochs must be at least 1, got {options.max_epochs}")
    out = writable(Path(options.out))

    import logging

    import pytorch_lightning as pl

    import svae
    from svae.training import Recipe

    logging.basicConfig(format="%(message)s")
    data, preset = load_data(options)
    say(f"data: {data.name}, {len(data.train)} training and {len(data.test)} test images")

    pl.seed_everything(options.seed, workers=True, verbose=False)
    vae = build(options, data, preset)
    epochs = preset.max_epochs if options.max_epochs is None else options.max_epochs
    logs = svae.fit(
        vae,
        data,
        objective=objective(options, data),
        recipe=Recipe(flow_share=preset.flow_share, joint=options.style_flow == "joint"),
        seed=options.seed,
        out=out,
        resume=options.resume,
        max_epochs=epochs,
        accelerator=options.device,
        devices=1,
        precision=options.precision,
    )
    vae.cpu().save(out)
    trained = time.perf_counter() - started
    say(f"trained in {trained:.0f} s; measuring")

    metrics = measure(vae, data, options)
    metrics |= {
        "dataset": data.name,
        "preset": options.preset,
        "n_labels": int((data.train.marked >= 0).sum()),
        "seed": options.seed,
        "max_epochs": epochs,
        "seconds_training": round(trained, 1),
    }
    write(metrics, out)  # a picture that fails loses no number
    draw(vae, data, out, logs, quick=options.quick)
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    metrics["peak_memory_gb"] = peak_memory()
    write(metrics, out)
    report(metrics, out)
    return metrics


def load_data(options: argparse.Namespace) -> tuple[Any, Preset]:
    """The data set and the preset that goes with it."""
    import svae

    data = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    preset = PRESETS["digits" if data.name == "digits" else "mnist", options.preset]
    data.batch_size = preset.batch_size
    if options.n_labels is not None:
        data.keep_labels(options.n_labels)
        data.mixture = svae.data.Mixture(balanced=True, labelled=0.25)
    if preset.augment or options.n_labels is not None:
        data.augment = svae.data.RandomAffine(degrees=10.0, translate=0.07, scale=(0.9, 1.1))
    return data, preset


def build(options: argparse.Namespace, data: Any, preset: Preset) -> Any:
    """The SVAE that the options describe."""
    import svae
    from svae.priors import StandardPrior

    split = svae.LatentSplit(options.n_class, options.n_nuisance)
    k = data.n_classes
    heads = {
        "gaussian": lambda: svae.GaussianHead(split.n_class, k),
        "linear": lambda: svae.NetworkHead(split.n_class, k),
        "mlp": lambda: svae.NetworkHead(split.n_class, k, hidden=(64,)),
    }
    return svae.SVAE.for_images(
        data.x_shape,
        k,
        split,
        head=heads[options.head](),
        style_prior=StandardPrior(split.n_nuisance) if options.style_flow == "none" else None,
        width=preset.width,
    )


def objective(options: argparse.Namespace, data: Any) -> Any:
    """Terms and weights of the loss."""
    import svae
    from svae import independence

    penalties = {
        "none": lambda _: [],
        "adversary": lambda w: [
            independence.AdversarialProbe(options.n_nuisance, data.n_classes, w)
        ],
        "mmd": lambda w: [independence.ClassConditionalMMD(w)],
        "hsic": lambda w: [independence.HSIC(w)],
        "swap": lambda w: [independence.SwapCycle(w)],
        "tc": lambda w: [
            independence.TotalCorrelation(options.n_class + options.n_nuisance, weight=w)
        ],
    }
    chosen = penalties[options.penalty](options.penalty_weight)
    few = options.n_labels is not None
    if few:
        change = svae.data.RandomAffine(15.0, 0.1, (0.85, 1.15), 7.5)
        chosen.append(svae.consistency.Consistency(change))
    return svae.SupervisedELBO(
        beta_class=options.beta_class or (1.0 if few else 10.0),
        beta_style=options.beta_style,
        label_weight=options.label_weight,
        penalties=chosen,
    )


def measure(vae: Any, data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Everything of ``metrics.json`` that is measured on the test set."""
    import torch

    import svae
    from svae.auditing import AuditSettings, audit
    from svae.judge import load_judge

    judge = load_judge(data)
    settings = AuditSettings(seed=options.seed)
    if options.quick:
        settings = AuditSettings(n_draws=2, n_codes=1000, n_test=500, seed=options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    result = audit(vae, data, judge, settings, lambda y: vae.sample(y, 1, generator)[0])
    with result.part("evidence"), torch.random.fork_rng():
        torch.manual_seed(options.seed)
        n = 50 if options.quick else 1000
        x = data.test.batch(torch.arange(min(n, len(data.test)))).x.float() / 255
        bounds = [svae.evidence(vae, part, 64) for part in x.split(20)]
        for name, values in zip(("elbo", "iwae_64"), zip(*bounds, strict=True), strict=True):
            result.numbers[name] = svae.metrics.mean(torch.cat(values))
        result.numbers["evidence_examples"] = len(x)
        result.numbers["likelihood"] = type(vae.model.likelihood).__name__
        result.numbers["likelihood_is_density"] = int(vae.model.likelihood.density)
    for name, seconds in result.seconds.items():
        say(f"  {name}: {seconds:.0f} s")
    return result.flat()


def draw(vae: Any, data: Any, out: Path, logs: Path | None, quick: bool) -> None:
    """Writes the pictures."""
    import torch

    from svae import plots
    from svae.factorization import in_batches

    generator = torch.Generator().manual_seed(0)
    n = 600 if quick else 3000
    batch = data.test.batch(torch.arange(min(n, len(data.test))))
    x, y = batch.x.float() / 255, batch.y
    first = [int((y == k).nonzero()[0]) for k in range(data.n_classes) if (y == k).any()]
    one_each = x[first]
    classes = torch.arange(data.n_classes)
    with torch.no_grad():
        latent = in_batches(lambda part: vae.encode(part, sample=True), x)
        predicted = in_batches(vae.predict, x).argmax(1)
        pictures = {
            "reconstructions": plots.reconstructions(vae, x[:12]),
            "samples": plots.class_samples(vae.sample(classes, 8, generator), data.class_names),
            "nuisance_grid": plots.nuisance_grid(vae, one_each, 10, generator),
            "swap_grid": plots.swap_grid(vae, one_each[:8]),
            "traversals": plots.traversals(vae, x[first[min(3, len(first) - 1)]]),
            "embedding": plots.embedding(
                {"z_class": latent.z_class, "z_nuisance": latent.z_nuisance}, y, data.class_names
            ),
            "confusion": plots.confusion(predicted, y, data.class_names),
        }
        if logs is not None:
            pictures["training_curves"] = plots.training_curves(logs / "metrics.csv")
    for name, figure in pictures.items():
        plots.save(figure, out / f"{name}.png")


def write(metrics: dict[str, Any], out: Path) -> None:
    """Writes ``metrics.json``."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def report(metrics: dict[str, Any], out: Path) -> None:
    """Prints the numbers that matter, each beside its opposite."""
    shown = (
        ("accuracy", "test_accuracy"),
        ("class kept when the nuisance is resampled (independent judge)", "preservation"),
        ("class kept with another image's nuisance", "preservation_swapped"),
        ("class follows z_class in swaps", "switch_rate"),
        ("class read from the nuisance, samples", "leakage_samples_strongest"),
        ("class read from the nuisance, means", "leakage_means_strongest"),
        ("  chance", "chance"),
        ("diversity over real within-class diversity", "diversity_ratio"),
        ("conditional coverage", "conditional_coverage"),
        ("  real against real", "conditional_coverage_floor"),
        ("FID in judge features", "fid"),
        ("  real against real", "fid_floor"),
    )
    say(f"\n{metrics['dataset']}, preset {metrics['preset']}, seed {metrics['seed']}")
    for text, name in shown:
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = "" if low is None else f"  [{low:.4f}, {high:.4f}]"
        say(f"  {text:<64}{metrics[name]:8.4f}{interval}")
    say(f"{metrics['seconds_total']:.0f} s; everything is in {out}/")


def writable(out: Path) -> Path:
    """The folder, tried before anything is computed that it could lose."""
    from svae.saving import writable as tried

    try:
        return tried(out)
    except OSError as error:
        raise SystemExit(f"--out: {error}") from error


def peak_memory() -> float:
    """Largest resident size of this process so far, in GB."""
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (2**30 if sys.platform == "darwin" else 2**20), 2)


def say(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()

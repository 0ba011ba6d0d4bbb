"""The comparison: everyone whom a user could pick instead, on one split, by one loop.

Question: what does a supervised VAE with a split latent give, and what does it cost, beside
classifiers, other VAEs, flows and generators of the same size?
Expectation: as accurate as a classifier, and the best of those that split their latent at keeping
the class while everything else varies.
Cost: a minute or two for each model and seed on the digits, five to ten on MNIST. Finished cells
are kept, and run side by side where there are cores.

    python benchmarks/run.py --suite digits           # writes benchmarks/results/run_digits.json
    python benchmarks/run.py --suite mnist --quick    # a few minutes, for the tests
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, write  # noqa: E402


@dataclass(frozen=True)
class Suite:
    """A data set, and how long models are trained on it.

    Args:
        source: Where the data come from.
        epochs: Passes over the training set, all phases together.
        batch_size: Examples per step.
        target: Validation accuracy that times are compared at.
        colour: Whether samples are judged in features of natural pictures.
        strength: Largest change of a pixel by an attack.
        width: Channels of the first convolution.
        flow_share: Share of our passes that fits the style flow.
    """

    source: str
    epochs: int
    batch_size: int = 128
    target: float = 0.97
    colour: bool = False
    strength: float = 0.1
    width: int = 32
    flow_share: float = 0.5


SUITES = {
    "digits": Suite("scikit-learn's 8x8 digits, UCI", 30, 32, 0.95, flow_share=0.2),
    "mnist": Suite("MNIST, LeCun et al. 1998", 12, target=0.98, flow_share=7 / 12),
    "fashion": Suite("Fashion-MNIST, Xiao et al. 2017", 12, target=0.85, flow_share=7 / 12),
    "kmnist": Suite("KMNIST, Clanuwat et al. 2018", 12, target=0.9, flow_share=7 / 12),
    "coloured": Suite(
        "MNIST, each digit in one colour drawn at random", 8, target=0.97, colour=True
    ),
    "dsprites": Suite("dSprites, Matthey et al. 2017, shape as class", 8, target=0.95, width=16),
    "cifar10": Suite(
        "CIFAR-10, Krizhevsky 2009, as far as $SVAE_DATA holds it", 12, target=0.5, colour=True,
        strength=4 / 255, width=48,
    ),
}  # fmt: skip
# Columns of the table: name, title, format, and whether more is better.
COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    ("test_accuracy", "accuracy", ".3f", True),
    ("ece", "ECE", ".3f", False),
    ("preservation", "class kept", ".3f", True),
    ("diversity_ratio", "diversity", ".2f", True),
    ("conditional_coverage", "coverage in class", ".2f", True),
    ("switch_rate", "switch rate", ".3f", True),
    ("leakage_samples_strongest", "leakage", ".3f", False),
    ("reconstruction_preservation", "reconstruction kept", ".3f", True),
    ("fid", "FID", ".3g", False),
    ("fid_conditional", "FID in class", ".3g", False),
    ("iwae", "IWAE, nats", ".1f", True),
    ("pgd_accuracy", "accuracy, PGD", ".3f", True),
    ("rotated_accuracy", "rotated", ".3f", True),
    ("seconds_to_target", "seconds to target", ".0f", False),
    ("samples_per_second", "samples/s", ".0f", True),
    ("n_parameters", "parameters", ".2e", False),
)
# What must not be bought with its opposite.
OPPOSITES = (
    ("preservation", "diversity_ratio"),
    ("leakage_samples_strongest", "reconstruction_preservation"),
    ("test_accuracy", "fid"),
)


def loaded(name: str, seed: int, quick: bool) -> Any:
    """The data of a suite; the quick ones are cut down."""
    import torch

    import svae

    suite = SUITES[name]
    if name == "coloured":
        base = svae.data.choose("mnist", seed=seed)
        data: Any = svae.data.ColouredDigits(base, "uniform", seed=seed)
    else:
        data = svae.data.choose(name, seed=seed)
    data.batch_size = suite.batch_size
    if quick:
        data.train = data.train.subset(torch.arange(min(1000, len(data.train))))
        data.validation = data.validation.subset(torch.arange(min(300, len(data.validation))))
        data.test = data.test.subset(torch.arange(min(200, len(data.test))))
    return data


def seen_by(judge: Any, features: Callable[[Any], Any]) -> Any:
    """A judge that gives its own answers, and features of another network."""
    from torch import nn

    from svae.judge import Judge

    class Seen(Judge):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.judge = judge

        def forward(self, x: Any) -> Any:
            return self.judge(x)

        def features(self, x: Any) -> Any:
            return features(x)

    return Seen()


def cell(name: str, contestant: str, seed: int, quick: bool) -> dict[str, Any]:
    """Trains one model on one split, and measures it."""
    import torch

    torch.set_num_threads(1)
    from benchmarks.contest import CONTESTANTS, Training
    from benchmarks.peers.common import Sizes

    suite, data = SUITES[name], loaded(name, seed, quick)
    sizes = Sizes(tuple(data.x_shape), data.n_classes, width=16 if quick else suite.width)
    training = Training(data, sizes, 2 if quick else suite.epochs, seed, suite.flow_share)
    started = time.perf_counter()
    trained = CONTESTANTS[contestant].train(training)
    found: dict[str, Any] = {"seconds_training": round(time.perf_counter() - started, 1)}
    found |= measured(trained, data, suite, seed, quick)
    found["n_parameters"] = trained.n_parameters
    found["seconds_to_target"] = next(
        (seconds for seconds, accuracy in trained.curve if accuracy >= suite.target), None
    )
    found["seconds_per_epoch"] = found["seconds_training"] / training.epochs
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["peak_memory_gb"] = round(size / (2**30 if sys.platform == "darwin" else 2**20), 2)
    return found


def measured(trained: Any, data: Any, suite: Suite, seed: int, quick: bool) -> dict[str, Any]:
    """Everything that such a model can be asked."""
    import torch

    from svae import metrics
    from svae.auditing import Audit, AuditSettings, audit
    from svae.factorization import in_batches
    from svae.judge import load_judge

    model, judge = trained.model, load_judge(data)
    if suite.colour:
        from experiments.networks import squeezenet_features

        judge = seen_by(judge, squeezenet_features())
    generator = torch.Generator().manual_seed(seed)
    n = 200 if quick else 5000
    x, y = data.test.floats(limit=n), data.test.y[:n]
    sample = trained.sample
    if trained.splits:
        how = AuditSettings(
            n_codes=1000 if quick else 10_000,
            n_test=n,
            by_dim=False,
            n_flips=min(n, 500),
            seed=seed,
        )
        result = audit(
            model, data, judge, how, sample and (lambda labels: sample(labels, generator))
        )
    else:
        result = Audit()
        logits = in_batches(model.predict, x)
        result.numbers |= {
            "test_accuracy": metrics.accuracy(logits, y),
            "nll": metrics.negative_log_likelihood(logits, y),
            "ece": metrics.expected_calibration_error(logits, y),
        }
        if sample is not None:
            with torch.no_grad():
                drawn = torch.cat([sample(part, generator) for part in y.split(500)])
            real, fake = in_batches(judge.features, x), in_batches(judge.features, drawn)
            result.numbers["fid"] = metrics.frechet_distance(real, fake)
            within = metrics.conditional_frechet_distance
            if int(torch.bincount(y).min()) >= 20:
                result.numbers["fid_conditional"] = within(real, y, fake, y)
    found = result.numbers
    if trained.averaged is not None:
        torch.manual_seed(seed)
        found["test_accuracy_12_samples"] = metrics.accuracy(in_batches(trained.averaged, x), y)
    found |= robustness(model.predict, x, y, suite, generator)
    with torch.no_grad():
        if trained.bounds is not None:
            torch.manual_seed(seed)
            few = x[: 50 if quick else 500]
            rows = [trained.bounds(part, 64) for part in few.split(25)]
            for name, values in zip(("elbo", "iwae"), zip(*rows, strict=True), strict=True):
                found[name] = metrics.mean(torch.cat(values))
        if sample is not None:
            labels = torch.arange(500) % data.n_classes
            sample(labels[:20], generator)
            start = time.perf_counter()
            sample(labels, generator)
            found["samples_per_second"] = len(labels) / (time.perf_counter() - start)
    return result.flat()


def robustness(
    predict: Callable[[Any], Any], x: Any, y: Any, suite: Suite, generator: Any
) -> dict[str, Any]:
    """Accuracy on attacked, rotated and noisy inputs."""
    import torch
    from torchvision.transforms.functional import rotate

    from svae.attacks import fgsm, pgd
    from svae.factorization import in_batches
    from svae.metrics import accuracy

    few, labels = x[:500], y[:500]
    noisy = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    changed = {
        "fgsm": (fgsm(predict, few, labels, suite.strength), labels),
        "pgd": (pgd(predict, few, labels, suite.strength), labels),
        "rotated": (rotate(x, 30.0), y),
        "noisy": (noisy, y),
    }
    with torch.no_grad():
        return {
            f"{name}_accuracy": accuracy(in_batches(predict, seen), known)
            for name, (seen, known) in changed.items()
        }


def code_version() -> str:
    """A hash of everything that a cell's numbers depend on."""
    digest = hashlib.sha256()
    places = [*(ROOT / "svae").rglob("*.py"), *(ROOT / "benchmarks" / "peers").glob("*.py")]
    places += [ROOT / "benchmarks" / "contest.py", Path(__file__)]
    for path in sorted(places):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def cells(options: argparse.Namespace) -> list[tuple[str, int, Path]]:
    """Model, seed and file of every cell."""
    kind = f"{options.suite}{'_quick' * options.quick}"
    folder = options.runs / "run" / kind
    return [
        (name, seed, folder / f"{name.replace(' ', '_')}_{seed}.json")
        for name in options.models
        for seed in options.seeds
    ]


def run_cells(options: argparse.Namespace) -> None:
    """Runs what is not finished, side by side; a cell that fails leaves the others alone."""
    version = code_version()
    waiting = [one for one in cells(options) if not one[2].exists()]
    jobs = {(name, seed): path for name, seed, path in waiting}

    def keep(name: str, seed: int, found: dict[str, Any]) -> None:
        path = jobs[name, seed]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**found, "code": version}, indent=1), encoding="utf-8")
        print(f"{name}, seed {seed}: {found['seconds_training']:.0f} s of training", flush=True)

    failed = []
    submit = ray_engine if options.engine == "ray" else process_engine
    for (name, seed), result in submit(options, list(jobs)):
        if isinstance(result, BaseException):
            failed.append(f"{name}, seed {seed}: {type(result).__name__}: {result}")
            print(f"FAILED: {failed[-1]}", flush=True)
        else:
            keep(name, seed, result)
    if failed:
        raise SystemExit(f"{len(failed)} cells failed; the others are kept:\n" + "\n".join(failed))


def process_engine(options: argparse.Namespace, jobs: list[tuple[str, int]]) -> Any:
    """Results as they come, from a process for each core."""
    if options.cores == 1:
        for name, seed in jobs:
            try:
                yield (name, seed), cell(options.suite, name, seed, options.quick)
            except Exception as error:  # noqa: BLE001  # whatever it is, other cells go on
                yield (name, seed), error
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.cores, mp_context=context) as pool:
        waiting = {pool.submit(cell, options.suite, *job, options.quick): job for job in jobs}
        for future in as_completed(waiting):
            error = future.exception()
            yield waiting[future], future.result() if error is None else error


def ray_engine(options: argparse.Namespace, jobs: list[tuple[str, int]]) -> Any:
    """Results as they come, from a Ray cluster: the one that ``$RAY_ADDRESS`` names, else here."""
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init(runtime_env={"working_dir": str(ROOT), "excludes": ["runs", ".git", "data"]})
    else:  # workers here inherit the environment
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        # Ray's workers give way to everyone else; on one machine the cells are what it is for.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(num_cpus=options.cores, include_dashboard=False)
    remote = ray.remote(num_cpus=1)(cell)
    waiting = {remote.remote(options.suite, *job, options.quick): job for job in jobs}
    while waiting:
        done, _ = ray.wait(list(waiting))
        for one in done:
            try:
                yield waiting[one], ray.get(one)
            except Exception as error:  # noqa: BLE001  # whatever it is, other cells go on
                yield waiting[one], error
            del waiting[one]
    ray.shutdown()


def gathered(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Finished cells by model.

    Raises:
        SystemExit: If they come from different versions of the code, unless that is said to be
            wanted.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    versions = set()
    for name, _, path in cells(options):
        if path.exists():
            one = json.loads(path.read_text(encoding="utf-8"))
            versions.add(one["code"])
            found.setdefault(name, []).append(one)
    if len(versions) > 1 and not options.mixed:
        raise SystemExit(
            f"cells of {len(versions)} versions of the code lie in {options.runs / 'run'}: "
            f"{', '.join(sorted(versions))}. Remove the old ones, or say --mixed."
        )
    return found


def average(runs: list[dict[str, Any]], name: str) -> float | None:
    """Mean over seeds of a number that all runs have."""
    values = [one.get(name) for one in runs]
    if any(value is None for value in values):
        return None
    return sum(values) / len(values)


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row for each model, means over seeds with half a 95 % interval."""
    lines = [
        f"| model | {' | '.join(title for _, title, _, _ in COLUMNS)} |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for model, runs in found.items():
        cells_ = []
        for name, _, form, _ in COLUMNS:
            value = average(runs, name)
            if value is None:
                cells_.append("")
                continue
            one = claim(name, "", "", [float(run[name]) for run in runs])
            interval = one.get("interval")
            half = f" ± {format(one['measured'] - interval[0], form)}" if interval else ""
            cells_.append(f"{format(value, form)}{half}")
        lines.append(f"| {model} | {' | '.join(cells_)} |")
    return "\n".join(lines) + "\n"


def exceptions(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Peers outside the frontier of ours: better than one of ours on it, and worse in nothing.

    Two numbers that are opposites are looked at together: what is bought with the other is a
    choice, what costs nothing is not.
    """
    from benchmarks.contest import CONTESTANTS

    sign = {name: 1 if up else -1 for name, _, _, up in COLUMNS}

    def dominates(one: list[float], other: list[float]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    said = []
    for pair in OPPOSITES:
        points = {}
        for model, runs in found.items():
            values = [average(runs, name) for name in pair]
            if None not in values:
                points[model] = [sign[n] * float(v) for n, v in zip(pair, values, strict=True)]  # type: ignore[arg-type]
        ours = {name: point for name, point in points.items() if CONTESTANTS[name].ours}
        front = {
            name: point
            for name, point in ours.items()
            if not any(dominates(other, point) for other in ours.values())
        }
        for model, point in points.items():
            beaten = [name for name, other in front.items() if dominates(point, other)]
            if model not in ours and beaten:
                said.append(f"{model}: {pair[0]} and {pair[1]}, better than {', '.join(beaten)}")
    return said


def main(arguments: list[str] | None = None) -> None:
    """Runs a suite, and writes its results, its table and its plots."""
    from benchmarks.contest import CONTESTANTS

    parser = argparse.ArgumentParser(description="Compares models on one suite.")
    parser.add_argument("--suite", default="digits", choices=[*SUITES])
    parser.add_argument("--models", nargs="*", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument("--seeds", nargs="*", type=int, help="0 1 2, and 0 for --quick")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--engine", default="processes", choices=["processes", "ray"])
    parser.add_argument("--quick", action="store_true", help="two epochs of few images, for tests")
    parser.add_argument("--have", action="store_true", help="write what is finished, run nothing")
    parser.add_argument("--mixed", action="store_true", help="accept cells of other code versions")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, help="benchmarks/results/run_SUITE.json if not given")
    parser.add_argument("--tables", type=Path, default=ROOT / "docs" / "_tables")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "_static")
    options = parser.parse_args(arguments)
    if options.seeds is None:
        options.seeds = [0] if options.quick else [0, 1, 2]
    if options.out is None:
        options.out = ROOT / "benchmarks" / "results" / f"run_{options.suite}.json"
    if not options.have:
        run_cells(options)
    found = gathered(options)
    said = exceptions(found)
    claims = claims_of(options.suite, found, said)
    tries = {name: CONTESTANTS[name].tries for name in found}
    write(
        command("run", arguments), claims, options.out, source=SUITES[options.suite].source,
        cells=found, exceptions=said, tries=tries,
        code=sorted({one["code"] for runs in found.values() for one in runs}),
    )  # fmt: skip
    options.tables.mkdir(parents=True, exist_ok=True)
    (options.tables / f"run_{options.suite}.md").write_text(table(found), encoding="utf-8")
    from benchmarks.frontiers import draw

    draw(found, {name: CONTESTANTS[name].ours for name in found}, options.plots, options.suite)
    for text in said:
        print(f"beats ours: {text}")


def claims_of(
    suite: str, found: dict[str, list[dict[str, Any]]], said: list[str]
) -> list[dict[str, Any]]:
    """Claims of one suite."""
    text = "peers better than one of ours on our frontier, and worse in nothing"
    made = [claim(f"compare.{suite}.exceptions", f"{text}, {suite}", "<= 0", [float(len(said))])]
    if "SVAE" in found and "VAE + classifier" in found:
        pairs = zip(found["SVAE"], found["VAE + classifier"], strict=False)
        ratios = [a["fid"] / b["fid"] for a, b in pairs]
        text = f"FID of the supervised VAE over that of the unsupervised one, {suite}"
        made.append(claim(f"compare.{suite}.fid", text, "<= 0.7", ratios))
    return made


if __name__ == "__main__":
    main()

"""Does the default run keep its promises, over three seeds?

Question: accuracy, preservation, leakage, diversity and coverage, all in one set of settings.
Expectation: the targets below.
Cost: three default and three ``best`` runs on MNIST, three plain classifiers, three runs on the
digits: about an hour on two idle CPU cores. Finished runs are kept and not repeated.

    python benchmarks/core.py                       # writes benchmarks/results/core.json
    python benchmarks/core.py --best-seeds          # without the long runs
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import import_time  # noqa: E402
from benchmarks.evidence import claim, command, write  # noqa: E402

Metrics = dict[str, Any]

# id, text, target, how to take the number from one run's metrics.
MNIST = (
    ("accuracy", "test accuracy", ">= 0.992", "test_accuracy"),
    ("preservation", "class kept under prior resampling, judge", ">= 0.985", "preservation"),
    ("swapped", "class kept under swapped posteriors, judge", ">= 0.98", "preservation_swapped"),
    ("switch_rate", "switch rate, judge", ">= 0.98", "switch_rate"),
    ("leakage_samples", "leakage over chance, samples", "<= 0.02", "leakage_samples_strongest"),
    ("leakage_means", "leakage, means (chance 0.1135)", "<= 0.35", "leakage_means_strongest"),
    ("diversity", "diversity over real diversity", ">= 0.8, <= 1.1", "diversity_ratio"),
    ("coverage", "conditional coverage", ">= 0.9", "conditional_coverage"),
    ("seconds", "seconds, everything included, fastest run", "<= 720", "seconds_total"),
    ("memory", "peak memory, GB", "<= 2.5", "peak_memory_gb"),
)
BEST = (("best.accuracy", "test accuracy, preset best", ">= 0.995", "test_accuracy"),)
DIGITS = (
    ("digits.accuracy", "digits: test accuracy", ">= 0.975", "test_accuracy"),
    ("digits.seconds", "digits: seconds, everything, fastest run", "<= 90", "seconds_total"),
)


def run(
    script: str, dataset: str, preset: str, seed: int, folder: Path, start: bool = True
) -> Metrics | None:
    """The metrics of one run, from its folder if it is finished there; else started, or None."""
    out = folder / Path(script).stem / dataset / preset / f"seed_{seed}"
    path = out / "metrics.json"
    if not path.exists() and not start:
        return None
    if not path.exists():
        command = [sys.executable, script, "--dataset", dataset, "--preset", preset]
        command += ["--seed", str(seed), "--out", str(out)]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=True, cwd=ROOT)
    return json.loads(path.read_text(encoding="utf-8"))


def over_chance(metrics: Metrics, key: str) -> float:
    """The number under ``key``; leakage of samples as what exceeds chance."""
    return metrics[key] - metrics["chance"] if key == "leakage_samples_strongest" else metrics[key]


def collect(
    all_seeds: dict[str, list[int]], folder: Path, start: bool = True
) -> list[dict[str, Any]]:
    """Gathers the claims, starting runs that are missing; seeds are given by preset."""
    claims = []
    sets = [("mnist", "default", MNIST), ("mnist", "best", BEST), ("digits", "default", DIGITS)]
    for dataset, preset, rows in sets:
        script = "experiments/mnist_svae.py"
        found = {s: run(script, dataset, preset, s, folder, start) for s in all_seeds[preset]}
        ours = {seed: metrics for seed, metrics in found.items() if metrics is not None}
        for name, text, target, key in rows:
            values = [over_chance(metrics, key) for metrics in ours.values()]
            claims.append(claim(f"core.{name}", text, target, values))
        if (dataset, preset) == ("mnist", "default"):
            script = "benchmarks/against_classifier.py"
            plain = {seed: run(script, dataset, preset, seed, folder, start) for seed in ours}
            gaps = [
                theirs["test_accuracy"] - ours[seed]["test_accuracy"]
                for seed, theirs in plain.items()
                if theirs is not None
            ]
            text = "test accuracy of a plain classifier minus ours"
            claims.append(claim("core.classifier_gap", text, "<= 0.001", gaps))
    ratio = import_time.measure(7)
    text = "import svae over import torch, median ratio of 7 pairs"
    claims.append(claim("core.import", text, "<= 1.15", [ratio["ratio"]]))
    return claims


def main(arguments: list[str] | None = None) -> None:
    """Writes ``benchmarks/results/core.json``."""
    parser = argparse.ArgumentParser(description="Evidence for the core claims.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--best-seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--finished", action="store_true", help="start no runs, take what is there"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "core.json")
    options = parser.parse_args(arguments)
    seeds = {"default": options.seeds, "best": options.best_seeds}
    claims = collect(seeds, options.runs, start=not options.finished)
    write(command("core", arguments), claims, options.out)


if __name__ == "__main__":
    main()

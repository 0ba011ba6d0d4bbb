"""Which head, and how the style flow is trained: the default beside its alternatives.

Question: which of the options that the experiment offers measures best?
Expectation: the class-conditional Gaussian head with a flow fitted in a second phase.
Cost: about a minute a row and seed on the digits, ten on MNIST. Finished runs are kept.

    python benchmarks/choices.py --dataset digits   # writes benchmarks/results/choices_digits.json
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.core import evidence  # noqa: E402

ROWS = {
    "default": [],
    "linear head": ["--head", "linear"],
    "perceptron head": ["--head", "mlp"],
    "joint flow": ["--style-flow", "joint"],
    "no flow": ["--style-flow", "none"],
    "no flow, adversary": ["--style-flow", "none", "--penalty", "adversary"],
    "no flow, MMD": ["--style-flow", "none", "--penalty", "mmd", "--penalty-weight", "100"],
    "no flow, HSIC": ["--style-flow", "none", "--penalty", "hsic", "--penalty-weight", "1000"],
    "no flow, swap cycle": ["--style-flow", "none", "--penalty", "swap"],
}
COLUMNS = (
    "test_accuracy",
    "preservation",
    "preservation_swapped",
    "leakage_samples_strongest",
    "leakage_means_strongest",
    "diversity_ratio",
    "conditional_coverage",
    "seconds_training",
)


def row(
    name: str, options: list[str], dataset: str, seeds: list[int], folder: Path
) -> dict[str, Any]:
    """Means over seeds of one way."""
    found = []
    for seed in seeds:
        out = folder / dataset / name.replace(", ", "-").replace(" ", "_") / f"seed_{seed}"
        if not (out / "metrics.json").exists():
            command = [sys.executable, "experiments/mnist_svae.py", "--dataset", dataset]
            command += ["--seed", str(seed), "--out", str(out), *options]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        found.append(json.loads((out / "metrics.json").read_text(encoding="utf-8")))
    means = {c: round(statistics.fmean(metrics[c] for metrics in found), 4) for c in COLUMNS}
    return {"way": name, "seeds": seeds, **means, "chance": found[0]["chance"]}


def main(arguments: list[str] | None = None) -> None:
    """Writes one JSON of all rows."""
    parser = argparse.ArgumentParser(description="The default beside its alternatives.")
    parser.add_argument("--dataset", default="digits", choices=["digits", "mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "choices")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    out = options.out or ROOT / "benchmarks" / "results" / f"choices_{options.dataset}.json"
    found = evidence(f"python benchmarks/choices.py --dataset {options.dataset}", [])
    del found["claims"]
    found["rows"] = [
        row(name, ROWS[name], options.dataset, options.seeds, options.runs)
        for name in options.rows
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

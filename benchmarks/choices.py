"""Which head, and how the style flow is trained: the default beside its alternatives.

Question: which of the options that the experiment offers measures best?
Expectation: the class-conditional Gaussian head with a flow fitted in a second phase.
Cost: about a minute a row and seed on the digits, ten on MNIST. Finished runs are kept.

    python benchmarks/choices.py --dataset digits   # writes benchmarks/results/choices_digits.json
    python benchmarks/choices.py --dataset mnist --seeds 0 --max-epochs 4 --rows default "no flow"
    python benchmarks/choices.py --tables           # only the tables of the documentation, again

Each call also writes the table that the page on choosing shows, ``docs/_tables/choices_*.md``.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import evidence  # noqa: E402

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
    "no flow, total correlation": ["--style-flow", "none", "--penalty", "tc"],
    "flow, adversary": ["--penalty", "adversary"],
    "flow, MMD": ["--penalty", "mmd", "--penalty-weight", "100"],
    "flow, HSIC": ["--penalty", "hsic", "--penalty-weight", "1000"],
    "flow, swap cycle": ["--penalty", "swap"],
    "flow, total correlation": ["--penalty", "tc"],
}
COLUMNS = {
    "test_accuracy": "accuracy",
    "preservation": "kept, prior",
    "preservation_swapped": "kept, swapped",
    "leakage_samples_strongest": "leakage, samples",
    "leakage_means_strongest": "leakage, means",
    "diversity_ratio": "diversity",
    "conditional_coverage": "coverage",
    "seconds_training": "training, s",
}
RESULTS = ROOT / "benchmarks" / "results"
TABLES = ROOT / "docs" / "_tables"


def row(
    name: str, options: list[str], dataset: str, seeds: list[int], folder: Path
) -> dict[str, Any]:
    """Means over seeds of one way, and their spread."""
    found = []
    for seed in seeds:
        out = folder / dataset / name.replace(", ", "-").replace(" ", "_") / f"seed_{seed}"
        if not (out / "metrics.json").exists():
            command = [sys.executable, "experiments/mnist_svae.py", "--dataset", dataset]
            command += ["--seed", str(seed), "--out", str(out), *options]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        found.append(json.loads((out / "metrics.json").read_text(encoding="utf-8")))
    values = {column: [metrics[column] for metrics in found] for column in COLUMNS}
    means = {column: round(statistics.fmean(of), 4) for column, of in values.items()}
    spread = {
        column: round(statistics.stdev(of), 4) if len(of) > 1 else None
        for column, of in values.items()
    }
    return {"way": name, "seeds": seeds, **means, "spread": spread, "chance": found[0]["chance"]}


def table(found: dict[str, Any]) -> str:
    """The rows of one data set as Markdown, with the spread over seeds where there are several."""
    seeds = sorted({seed for line in found["rows"] for seed in line["seeds"]})
    heading = ["way", *COLUMNS.values()]
    lines = [f"| {' | '.join(heading)} |", "|" + "---|" * len(heading)]
    for line in found["rows"]:
        cells = [_cell(line, column) for column in COLUMNS]
        lines.append(f"| {line['way']} | {' | '.join(cells)} |")
    text = (
        f"Mean over the seeds {seeds}, ± the standard deviation over them"
        if seeds[1:]
        else (f"One seed ({seeds[0]})")
    )
    origin = f"{found['machine']}, {found['date']}, torch {found['versions']['torch']}"
    chance = found["rows"][0]["chance"]
    lines += ["", f"{text}; leakage is the strongest of three probes, by chance {chance:.3g}."]
    lines += [f"From `{found['command']}` ({origin})."]
    return "\n".join(lines) + "\n"


def _cell(line: dict[str, Any], column: str) -> str:
    digits = 0 if column.startswith("seconds") else 3
    spread = line["spread"][column]
    return f"{line[column]:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def write_tables(results: Path, tables: Path) -> list[Path]:
    """Writes one table for each ``choices_*.json``; gives the files."""
    tables.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(results.glob("choices_*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        target = tables / f"{path.stem}.md"
        target.write_text(table(found), encoding="utf-8")
        written.append(target)
    return written


def main(arguments: list[str] | None = None) -> None:
    """Writes one JSON of all rows, and the tables."""
    parser = argparse.ArgumentParser(description="The default beside its alternatives.")
    parser.add_argument("--dataset", default="digits", choices=["digits", "mnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-epochs", type=int, help="of every run; the preset's if not given")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "choices")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-folder", type=Path, default=TABLES)
    parser.add_argument("--tables", action="store_true", help="only write the tables again")
    options = parser.parse_args(arguments)
    if not options.tables:
        given = shlex.join(sys.argv[1:] if arguments is None else arguments)
        found = evidence(f"python benchmarks/choices.py {given}".strip(), [])
        del found["claims"]
        epochs = ["--max-epochs", str(options.max_epochs)] if options.max_epochs else []
        found["rows"] = [
            row(name, ROWS[name] + epochs, options.dataset, options.seeds, options.runs)
            for name in options.rows
        ]
        options.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1) + "\n"
        (options.results / f"choices_{options.dataset}.json").write_text(text, encoding="utf-8")
    write_tables(options.results, options.table_folder)


if __name__ == "__main__":
    main()

"""Trains the judge that measurements use, and checks it against the one in the package.

Question: can a network small enough to ship, seen by no model of ours, say which digit a picture
shows.
Expectation: at least 99.3 % of MNIST's test images, in less than 1 MB.
Cost: about 5 minutes on one CPU core.
Command: python experiments/train_judge.py --dataset mnist --seed 0

The judge in the package is the output of that command, copied from ``--out`` to ``svae/judges``.
"""

import argparse
import hashlib
import json
import logging
import platform
from importlib import metadata, resources
from pathlib import Path

import torch

from svae.data import choose
from svae.judge import save_judge, train_judge
from svae.metrics.calibration import accuracy


def main(arguments: list[str] | None = None) -> None:
    """Trains, measures on the test set and writes weights, their description and metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", default=None, help="folder of data sets")
    parser.add_argument("--dataset", default="mnist", help="auto, mnist, fashion, kmnist, digits")
    parser.add_argument("--out", type=Path, default=Path("runs/judge"), help="folder of results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-epochs", type=int, default=None, help="default: the recipe's own")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # One thread, and the split of seed 0 whatever the seed: both are part of the recipe.
    torch.set_num_threads(1)
    data = choose(options.dataset, root=options.data_root, seed=0)
    judge = train_judge(data, options.max_epochs, options.seed, options.device)
    with torch.no_grad():
        logits = torch.cat([judge(x) for x in data.test.floats().split(500)])
    labels = data.test.y
    if labels is None:
        raise ValueError(f"the test set of {data.name} has no labels to measure the judge by")
    found = accuracy(logits, labels)

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{data.name}.safetensors"
    save_judge(judge, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    command = f"python experiments/train_judge.py --dataset {options.dataset}"
    description = {
        "sha256": digest,
        "test_accuracy": found.value,
        "validation_accuracy": judge.validation_accuracy,
        "n_features": judge.n_features,
        "command": f"{command} --seed {options.seed}",
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "safetensors")},
        },
    }
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")
    numbers = {
        "dataset": data.name,
        "test_accuracy": found.value,
        "test_accuracy_low": found.low,
        "test_accuracy_high": found.high,
    }
    (options.out / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n")
    print(f"test accuracy {found}, {path.stat().st_size / 1e3:.0f} kB in {path}")
    shipped = resources.files("svae") / "judges" / f"{data.name}.json"
    if shipped.is_file():
        same = json.loads(shipped.read_text())["sha256"] == digest
        print(f"{'the same' if same else 'not the same'} weights as in the package, to the bit")


if __name__ == "__main__":
    main()

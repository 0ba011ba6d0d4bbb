"""MNIST with few labels: how good is the class latent when most images have none?

Question: how many labels does a supervised VAE need when it may look at all images?
Expectation: 100 labels give what a model trained on 1000 labelled images alone gives.
Cost: two to four minutes for each of twelve runs on two cores. Finished runs are kept.

    python benchmarks/few_labels.py                 # writes benchmarks/results/few_labels.json

The label is summed out exactly where it is missing. A quarter of every batch is labelled, equally
many of each class; predictions must survive the random affine changes that augment the images
anyway, once more. Validation images have no labels either, so the number of labels is all that
training and the choice of a checkpoint know. The style flow, which no accuracy depends on, is not
fitted.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, finished, write  # noqa: E402

TARGETS = {100: ">= 0.96", 600: ">= 0.974", 1000: ">= 0.978", 3000: ">= 0.983"}


def train(n: int, seed: int, data: Any, epochs: int) -> dict[str, float]:
    """Test accuracy of one run with ``n`` labels."""
    import pytorch_lightning as pl
    import torch

    import svae
    from svae.consistency import Consistency
    from svae.factorization import in_batches
    from svae.training import Recipe

    start = time.perf_counter()
    pl.seed_everything(seed, workers=True, verbose=False)
    data.augment = svae.data.RandomAffine(degrees=10.0, translate=0.07, scale=(0.9, 1.1))
    data.mixture = svae.data.Mixture(balanced=True, labelled=0.25)
    data.keep_labels(n)
    change = svae.data.RandomAffine(degrees=15.0, translate=0.1, scale=(0.85, 1.15), shear=7.5)
    vae = svae.SVAE.for_images(data.x_shape, data.n_classes, svae.LatentSplit(8, 16))
    svae.fit(
        vae,
        data,
        objective=svae.SupervisedELBO(beta_class=1.0, penalties=[Consistency(change)]),
        recipe=Recipe(flow_share=0.0),
        seed=seed,
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
    )
    with torch.no_grad():
        predicted = in_batches(vae.predict, data.test.floats()).argmax(1)
    accuracy = float((predicted == data.test.marked).float().mean())
    return {"test_accuracy": accuracy, "seconds": round(time.perf_counter() - start, 1)}


def run(n: int, seed: int, epochs: int, folder: Path) -> dict[str, float]:
    """The numbers of one run on MNIST, from its file if it is finished."""
    import svae

    path = folder / "few_labels" / f"{n}_seed_{seed}_epochs_{epochs}.json"
    return finished(path, lambda: train(n, seed, svae.data.MNIST(seed=seed), epochs))


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims."""
    parser = argparse.ArgumentParser(description="Accuracy with few labels.")
    parser.add_argument("--labels", nargs="*", type=int, default=list(TARGETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "few_labels.json")
    options = parser.parse_args(arguments)
    claims = []
    for n in options.labels:
        runs = [run(n, seed, options.epochs, options.runs) for seed in options.seeds]
        values = [found["test_accuracy"] for found in runs]
        text = f"MNIST test accuracy with {n} labels"
        claims.append(claim(f"guides.labels.{n}", text, TARGETS[n], values))
    write(command("few_labels", arguments), claims, options.out)


if __name__ == "__main__":
    main()

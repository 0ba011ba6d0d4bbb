"""What does the style flow buy over a plain standard normal?

Question: how real are samples of a class when the style's prior is the flow, and when it is not?
Expectation: half the class-conditional FID, or less, with everything else equal.
Cost: five minutes a seed on two idle cores. Finished runs are kept.

    python benchmarks/style_flow.py                 # writes benchmarks/results/style_flow.json

The first phase of the default recipe trains model and guide under a standard normal; the second
fits the flow. So one trained model is measured twice, with the flow and with the standard normal
that it was trained under: weights, guide and decoder are the same. The standard normal is measured
a second time where it has its best chance, trained with a weight of 1 on the style's rate instead
of the default's 0.3. Features are those of the independent judge; 10,000 samples in the classes'
proportions of the test set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, finished, write  # noqa: E402


def fid(vae: Any, data: Any, judge: Any, seed: int) -> float:
    """Class-conditional FID of samples against the test set, in judge features."""
    import torch

    from svae import metrics
    from svae.factorization import in_batches

    generator = torch.Generator().manual_seed(seed)
    x, y = data.test.floats(), data.test.marked
    with torch.no_grad():
        drawn = torch.cat([vae.sample(part, 1, generator)[0] for part in y.split(500)])
        real, fake = (in_batches(judge.features, images) for images in (x, drawn))
    return metrics.conditional_frechet_distance(real, y, fake, y).value


def train(data: Any, seed: int, epochs: int, flow: bool, beta_style: float) -> Any:
    """The default model of the script, with the flow or under a standard normal to the end."""
    import pytorch_lightning as pl

    import svae
    from svae.priors import StandardPrior
    from svae.training import Recipe

    pl.seed_everything(seed, workers=True, verbose=False)
    split = svae.LatentSplit(8, 16)
    vae = svae.SVAE.for_images(
        data.x_shape,
        data.n_classes,
        split,
        style_prior=None if flow else StandardPrior(split.n_nuisance),
    )
    svae.fit(
        vae,
        data,
        objective=svae.SupervisedELBO(beta_style=beta_style),
        recipe=Recipe(flow_share=7 / 12 if flow else 0.0),
        seed=seed,
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
    )
    return vae


def run(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """The three numbers of one seed, from their file if it is there."""
    import svae
    from svae.elbo import without_flow
    from svae.judge import load_judge

    def measure() -> dict[str, float]:
        data = svae.data.choose(options.dataset, seed=seed)
        judge = load_judge(data)
        vae = train(data, seed, options.epochs, flow=True, beta_style=0.3)
        plain_epochs = options.epochs - round(options.epochs * 7 / 12)
        plain = train(data, seed, plain_epochs, flow=False, beta_style=1.0)
        return {
            "flow": fid(vae, data, judge, seed),
            "standard": fid(without_flow(vae), data, judge, seed),
            "standard_beta_1": fid(plain, data, judge, seed),
        }

    path = options.runs / "style_flow" / f"{options.dataset}_seed_{seed}_{options.epochs}.json"
    return finished(path, measure)


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims."""
    parser = argparse.ArgumentParser(description="Samples with and without the style flow.")
    parser.add_argument("--dataset", default="mnist", choices=["mnist", "digits"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "style_flow.json")
    options = parser.parse_args(arguments)
    rows = [run(seed, options) for seed in options.seeds]
    text = "MNIST class-conditional FID, style flow over standard normal, "
    claims = [
        claim(f"guides.fid.{name}", text + what, "<= 0.6667", [r["flow"] / r[key] for r in rows])
        for name, key, what in (
            ("equal", "standard", "the same weights"),
            ("beta_1", "standard_beta_1", "trained with rate weight 1"),
        )
    ]
    write(command("style_flow", arguments), claims, options.out, rows=rows)


if __name__ == "__main__":
    main()

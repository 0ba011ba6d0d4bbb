"""What does the class of a table's row leave open?

Question: which values can a row take when its class is fixed, and does the split hold on tables?
Expectation: accuracy of a good classifier; rows that vary like rows of their class.
Cost: one to three minutes on two cores.

    python experiments/table_svae.py
    python experiments/table_svae.py --dataset wine
    python experiments/table_svae.py --dataset mixed     # generated, numbers and categories

Nothing is specific to tables but the likelihood: the same metrics, judge and pictures as for
images. A table of a few hundred rows gives wide intervals.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DATASETS = ("breast-cancer", "wine", "mixed")


def parser() -> argparse.ArgumentParser:
    """Options of the script."""
    options = argparse.ArgumentParser(description="A supervised VAE of a table.")
    options.add_argument("--dataset", default="breast-cancer", choices=DATASETS)
    options.add_argument("--data-root", help="not used: all three are embedded or generated")
    options.add_argument("--out", default="runs/table_svae")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-epochs", type=int, default=200)
    options.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few draws, for tests")
    return options


def table(name: str, seed: int) -> Any:
    """One of the data sets."""
    import numpy as np
    from sklearn import datasets

    from svae.data import TabularData

    if name in ("breast-cancer", "wine"):
        load = {"breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]
        found: Any = load(as_frame=True)
        names = [str(n) for n in found.target_names]
        return TabularData(
            found.data, found.target, name=name, class_names=names, batch_size=32, seed=seed
        )
    # Like a survey of forests: numbers with classes in them, and two categories, of which one
    # depends on the class and the other on nothing.
    numbers, y = datasets.make_classification(
        4000, n_features=10, n_informative=6, n_classes=4, class_sep=1.5, random_state=seed
    )
    draws = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"number_{i}": column for i, column in enumerate(numbers.T)}
    columns["soil"] = np.array(["clay", "loam", "sand"])[(y + draws.integers(0, 2, len(y))) % 3]
    columns["side"] = draws.choice(["north", "south"], len(y))
    return TabularData(columns, y, name=name, seed=seed)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, measures, draws; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()

    import pytorch_lightning as pl
    import torch

    import svae
    from svae import plots
    from svae.auditing import AuditSettings, audit
    from svae.factorization import in_batches
    from svae.judge import load_judge
    from svae.likelihoods import Columns
    from svae.saving import writable

    out = writable(options.out)
    data = table(options.dataset, options.seed)
    encoding = data.encoding
    print(f"data: {data.name}, {len(data.train)} training and {len(data.test)} test rows")
    pl.seed_everything(options.seed, workers=True, verbose=False)
    vae = svae.SVAE.for_vectors(
        data.x_shape[0],
        data.n_classes,
        svae.LatentSplit(n_class=4, n_nuisance=8),
        likelihood=Columns(len(encoding.numeric), encoding.sizes),
        hidden=(128,),
    )
    logs = svae.fit(
        vae,
        data,
        # A row holds tens of nats: weights that suit pictures would drown it.
        objective=svae.SupervisedELBO(beta_class=1.0, label_weight=10.0, warm_up=200),
        seed=options.seed,
        out=out,
        max_epochs=options.max_epochs,
        accelerator=options.device,
        devices=1,
        enable_progress_bar=False,
    )
    vae.cpu().save(out)
    judge = load_judge(data)
    settings = AuditSettings(n_draws=2 if options.quick else 20, seed=options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    result = audit(vae, data, judge, settings, lambda y: vae.sample(y, 1, generator)[0])
    metrics: dict[str, Any] = result.flat() | {
        "dataset": data.name,
        "seed": options.seed,
        "max_epochs": options.max_epochs,
        "likelihood": "Columns",
        "likelihood_is_density": 1,
    }

    x, y = data.test.x, data.test.marked
    with torch.no_grad():
        latent = in_batches(lambda part: vae.encode(part, sample=True), x)
        predicted = in_batches(vae.predict, x).argmax(1)
        rows = svae.resample_nuisance(vae, x[:1], n=4, generator=generator)[:, 0]
    codes = {"z_class": latent.z_class, "z_nuisance": latent.z_nuisance}
    pictures = {
        "embedding": plots.embedding(codes, y, data.class_names),
        "confusion": plots.confusion(predicted, y, data.class_names),
        "training_curves": plots.training_curves(logs / "metrics.csv"),
    }
    for name, figure in pictures.items():
        plots.save(figure, out / f"{name}.png")
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")

    shown = encoding.decode(torch.cat([x[:1], rows]))
    print(f"\na {data.class_names[int(y[0])]} row, and four with its class and another nuisance:")
    for name in list(shown)[:6] + list(encoding.categories):
        cells = [f"{v:12.4g}" if name in encoding.numeric else f"{v!s:>12}" for v in shown[name]]
        print(f"  {name[:24]:<24}{''.join(cells)}")
    for text, name in (
        ("accuracy", "test_accuracy"),
        ("class kept when the nuisance is resampled (judge)", "preservation"),
        ("class read from the nuisance, samples", "leakage_samples_strongest"),
        ("  chance", "chance"),
        ("diversity over real within-class diversity", "diversity_ratio"),
        ("conditional coverage", "conditional_coverage"),
    ):
        print(f"  {text:<52}{metrics[name]:8.3f}")
    print(f"{metrics['seconds_total']:.0f} s; everything is in {out}/")
    return metrics


if __name__ == "__main__":
    main()

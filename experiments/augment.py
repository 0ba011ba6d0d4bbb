"""Does a classifier gain from pictures whose nuisance was drawn anew?

Question: with few labelled pictures, does training on resampled ones make a classifier more robust
to handwriting that it was not trained on?
Expectation: a supervised VAE that has seen many pictures, but whose nuisance is drawn for the few,
helps against slant and thickness, which it varies, less against turns and blur, which it does not.
Cost: fifteen minutes on MNIST, four on the digits, two cores.

    python experiments/augment.py                     # MNIST, else scikit-learn's digits
    python experiments/augment.py --labels 200        # of the classifier

The VAE is trained on all labelled pictures; the classifiers on the same few, for as many steps, as
they are, with the nuisance drawn anew, and with small turns, shifts and scales instead.
Where the VAE's labels are what helped, the last is the honest comparison.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(description="Augments by drawing the nuisance anew.")
    options.add_argument("--dataset", default="auto", choices=["auto", "mnist", "digits"])
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--out", default="runs/augment")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seeds", type=int, default=5, help="classifiers of each kind")
    options.add_argument("--labels", type=int, default=500, help="that classifiers are trained on")
    options.add_argument("--steps", type=int, default=600, help="of each classifier")
    options.add_argument("--max-epochs", type=int, default=8, help="of the VAE")
    options.add_argument("--run", help="folder of a trained model to take instead of training one")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few steps, for tests")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, tests on shifted sets; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()
    import svae
    from svae.data.augment import RandomAffine
    from svae.factorization import in_batches
    from svae.saving import writable

    out = writable(options.out)
    if options.quick:
        options.seeds, options.steps, options.max_epochs = 2, 20, 1
    data = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    vae = trained(data, options)
    vae.save(out)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda x: x,
        "resampled": svae.Augment(vae, p=0.7),
        "affine": RandomAffine(),
    }
    tests = shifted(data)
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for seed in range(options.seeds):
        for kind, augment in kinds.items():
            net = classifier(data, augment, options, seed)
            for name, (x, y) in tests.items():
                right = in_batches(net, x).argmax(1) == y
                found[kind].setdefault(name, []).append(float(right.float().mean()))
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    metrics: dict[str, Any] = {"dataset": data.name, "seed": options.seed}
    metrics |= {"labels": options.labels, "seeds": options.seeds}
    for kind, rows in found.items():
        for name, values in rows.items():
            metrics[f"{kind}.{name}"] = statistics.fmean(values)
    for kind in ("resampled", "affine"):
        for name, values in found[kind].items():
            gains = [a - b for a, b in zip(values, found["plain"][name], strict=True)]
            metrics |= interval(f"gain.{kind}.{name}", gains)
    metrics["test_accuracy"] = metrics["resampled.test"]
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    text = table(metrics, list(tests))
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text, flush=True)
    return metrics


def trained(data: Any, options: argparse.Namespace) -> Any:
    """The VAE whose nuisance is drawn."""
    import svae

    if options.run is not None:
        return svae.load(options.run)
    torch.manual_seed(options.seed)
    split = svae.LatentSplit(8, 16)
    vae = svae.SVAE.for_images(data.x_shape, data.n_classes, split, width=16)
    svae.fit(
        vae,
        data,
        seed=options.seed,
        max_epochs=options.max_epochs,
        accelerator=options.device,
        devices=1,
        enable_progress_bar=False,
    )
    return vae.cpu().eval()


def classifier(
    data: Any, augment: Callable[[Tensor], Tensor], options: argparse.Namespace, seed: int
) -> nn.Module:
    """A small network, trained on the few labelled pictures of a seed."""
    from svae.judge import Judge

    generator = torch.Generator().manual_seed(1000 + seed)
    rows = torch.randperm(len(data.train), generator=generator)[: options.labels]
    few = data.train.subset(rows)
    x, y = few.floats(), few.marked
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Judge(data.x_shape, data.n_classes).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
        for _ in range(options.steps):
            some = torch.randint(len(x), (64,))
            optimizer.zero_grad()
            functional.cross_entropy(net(augment(x[some])), y[some]).backward()
            optimizer.step()
    return net.eval()


def shifted(data: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Test sets as they are, and changed in one thing each."""
    from svae.sketches import Blur, Rotation, Shift, Size, Slant, Thickness

    x, y = data.test.floats(limit=2000), data.test.marked[:2000]
    step = 2.5 * x.shape[-1] / 28
    changes = {
        "slant": (Slant(-25.0), Slant(25.0)),
        "thickness": (Thickness(0.6), Thickness(1.7)),
        "rotation": (Rotation(-25.0), Rotation(25.0)),
        "size": (Size(0.75, 0.75), Size(1.2, 1.2)),
        "position": (Shift(step, step), Shift(-step, -step)),
        "blur": (Blur(step / 2),),
    }
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    sets = {"test": (x, y), "noise": ((x + 0.3 * noise).clamp(0, 1), y)}
    for name, operators in changes.items():
        sets[name] = (torch.cat([one(x) for one in operators]), y.repeat(len(operators)))
    return sets


def interval(name: str, values: list[float]) -> dict[str, float]:
    """Mean over seeds with Student's interval."""
    from svae.metrics import mean

    found = mean(torch.tensor(values))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def table(metrics: dict[str, Any], names: list[str]) -> str:
    """Accuracy by test set, and what augmentation gains."""
    lines = ["| test set | plain | nuisance drawn anew | gain | small turns and shifts |"]
    lines.append("|---" * 5 + "|")
    for name in names:
        gain = (metrics[f"gain.resampled.{name}{end}"] for end in ("", "_low", "_high"))
        lines.append(
            f"| {name} | {metrics[f'plain.{name}']:.3f} | {metrics[f'resampled.{name}']:.3f} "
            f"| {{:+.3f}} [{{:+.3f}}, {{:+.3f}}] | {metrics[f'affine.{name}']:.3f} |".format(*gain)
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""Can a class be moved from one natural picture to another, and what stays when it is?

Question: taken apart into class and residual, does a code of natural pictures carry the class of
one picture and everything else of another?
Expectation: in the grids the rows keep their colours, pose and background, and the columns give
what the network reads as the class; the network's answer follows the class part and stays when
the residual is drawn anew.
Cost: twenty-five minutes on CIFAR-10, on two cores.

    python experiments/natural_concepts.py                              # CIFAR-10, ResNet-20
    python experiments/natural_concepts.py --folder faces --table attributes.csv --label smiling

On CIFAR-10 the network is ResNet-20 with weights of other people, from ``$SVAE_DATA/models``. For
a folder of pictures a classifier of its labels is trained first and then frozen; every column of
the table that is not the label becomes a concept of its own. The codes are those of an autoencoder
that is trained to please the eyes of the frozen network too, and then frozen as well.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CLASS, RESIDUAL = "class", "residual"


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(description="Class and residual of natural pictures.")
    options.add_argument("--dataset", default="cifar10", choices=["cifar10", "digits"])
    options.add_argument("--folder", help="a folder of pictures instead")
    options.add_argument(
        "--table", help="its attributes; without one, sub-folders are the classes"
    )
    options.add_argument("--label", help="the column that is the class")
    options.add_argument("--size", type=int, default=64, help="side that pictures are cut to")
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--out", default="runs/natural_concepts")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-epochs", type=int, default=8, help="of the autoencoder")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few draws and pictures, for tests")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, explains, measures, draws; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()

    import torch

    import svae
    from svae.auditing import Audit
    from svae.saving import writable
    from svae.training import Recipe

    out = writable(options.out)
    torch.manual_seed(options.seed)
    data, concepts = load(options)
    network, look = subject(options, data)
    say(f"data: {data.name}, {len(data.train)} training and {len(data.test)} test pictures")

    def fit(model: Any, n_epochs: int, **settings: Any) -> None:
        svae.fit(
            model,
            data,
            seed=options.seed,
            **settings,
            max_epochs=n_epochs,
            accelerator=options.device,
            devices=1,
            enable_progress_bar=False,
        )
        model.cpu().eval()

    autoencoder = svae.bridges.Autoencoder(data.x_shape, n_code=256, noise=0.1)
    seen = svae.bridges.Perceptual(autoencoder, svae.Frozen(network, look))
    with data.batches_of(64):
        fit(seen, options.max_epochs, recipe=Recipe(learning_rate=5e-3))
    # Few pictures for so many dims: a small flow that bends little, much noise, and a light hand
    # on the answer. A larger one learns the pictures by heart, and its swaps end far from any.
    bridge = svae.ConceptBridge(
        svae.Frozen.autoencoder(autoencoder, network), concepts, n_blocks=4, hidden=(128, 128)
    )
    objective = svae.bridges.ConceptObjective(
        noise=0.2, value_weight=10.0, answer_weight=0.05, answer_share=0.5
    )
    slow = Recipe(learning_rate=1e-3, weight_decay=1e-2)
    fit(bridge, options.max_epochs, recipe=slow, objective=objective)
    bridge.save(out)

    result = Audit()
    n = 200 if options.quick else min(2000, len(data.test))
    with torch.no_grad():
        measure(result.numbers, bridge, network, data, n, options.seed)
    metrics = result.flat() | {"dataset": data.name, "seed": options.seed}
    metrics["max_epochs"] = options.max_epochs
    for part, n_dims in bridge.dims.items():
        metrics[f"dims_{part}"] = n_dims
    write(metrics, out)
    draw(bridge, data, out)
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    write(metrics, out)
    for name, value in metrics.items():
        say(f"  {name:<36}{value}")
    return metrics


def load(options: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The data and the concepts that they know of."""
    import svae
    from svae.bridges import Attribute, Classes

    if options.folder is None:
        return svae.data.choose(options.dataset, options.data_root, seed=options.seed), [Classes()]
    data = svae.data.ImageFolder(
        options.folder,
        table=options.table,
        label=options.label,
        size=options.size,
        seed=options.seed,
    )
    names = data.factor_names or ()
    return data, [Classes(), *(Attribute(name, column=i) for i, name in enumerate(names))]


def subject(options: argparse.Namespace, data: Any) -> tuple[Any, str]:
    """The network to explain, and the layer whose features pictures should keep."""
    from svae.judge import train_judge

    if options.folder is None and options.dataset == "cifar10":
        from experiments.networks import ResNet20

        return ResNet20.trained(), "layer2"
    return train_judge(data, 1 if options.quick else None, options.seed), "trunk.4"


def measure(found: Any, bridge: Any, network: Any, data: Any, n: int, seed: int) -> None:
    """What the network answers when parts are moved, and what it says of the pictures."""
    import torch

    import svae
    from svae.editing import response, swap_part
    from svae.metrics import accuracy, mean, proportion

    x, y = data.test.floats(limit=n), data.test.y[:n]
    generator = torch.Generator().manual_seed(seed)
    in_batches = svae.factorization.in_batches
    logits = in_batches(network, x)
    found["test_accuracy"] = accuracy(logits, y)
    redrawn = in_batches(lambda part: svae.reconstruct(bridge, part), x)
    found["reconstruction_accuracy"] = accuracy(in_batches(network, redrawn), y)
    found["absolute_error"] = mean((redrawn - x).abs().flatten(1).mean(1))
    for part in bridge.parts:
        responses = [response(bridge, piece, part, 5, generator) for piece in x[:500].split(100)]
        for kind in ("entropy", "kept"):
            values = torch.cat([getattr(one, kind) for one in responses])
            found[f"response_{kind}_{part}"] = mean(values)
    moved = in_batches(network, swap_part(bridge, x, x.flip(0), CLASS)).argmax(1)
    own = in_batches(bridge.predict, x).argmax(1)
    found["class_arrives"] = proportion(moved == own.flip(0))


def draw(bridge: Any, data: Any, out: Path) -> None:
    """Writes the pictures."""
    import torch

    from svae import plots

    x, y = data.test.floats(limit=500), data.test.y[:500]
    generator = torch.Generator().manual_seed(0)
    first = [int((y == k).nonzero()[0]) for k in range(data.n_classes) if bool((y == k).any())]
    some = x[first[:8]]
    names = [data.class_names[int(k)] for k in y[first[:8]]]
    pictures = {
        f"transfer_{part}": plots.transfer(bridge, some, part, None, names, names)
        for part in bridge.parts
    }
    pictures["reconstructions"] = plots.reconstructions(bridge, x[:12])
    pictures["resampled"] = plots.resampled_parts(bridge, some[:3], bridge.parts, 8, generator)
    half = min(len(some) // 2, 2)
    pictures["interpolations"] = plots.interpolations(
        bridge, some[:half], some[half : 2 * half], bridge.parts, n=8
    )
    for name, figure in pictures.items():
        plots.save(figure, out / f"{name}.png")


def write(metrics: dict[str, Any], out: Path) -> None:
    """Writes ``metrics.json``."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def say(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()

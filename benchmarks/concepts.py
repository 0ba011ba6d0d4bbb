"""What concept bridges keep, swap and generate, on networks that nobody here trained.

Question: is a frozen answer kept when the residual is resampled, at every layer; does a swapped
concept arrive; does an autoencoder become a generator?
Expectation: yes at all layers, and best where little of the network is left above.
Cost: twenty minutes a seed on two cores. Finished runs are kept.

    python benchmarks/concepts.py                   # writes benchmarks/results/concepts.json

LeNet (MNIST) and ResNet-20 (CIFAR-10) are frozen networks with weights of other people, in
``$SVAE_DATA/models``. Answers are read from the representation, exactly; pictures are judged by
networks and readers that had no part in any training.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, finished, write  # noqa: E402
from experiments import networks  # noqa: E402

RECIPE = 2  # raise it with every change of what is trained: finished runs are told apart by it
MAIN = {"lenet": "relu", "resnet20": "mean"}  # the layers of the claims; the others once
# Code dims: as many as it takes to show a picture well.
CODES = {"mnist": 64, "cifar10": 512}
# What a flow of few pictures misses of natural ones must not show at once.
NOISE = {"mnist": 0.02, "cifar10": 0.3}
LAYERS = {"lenet": networks.LENET_LAYERS, "resnet20": networks.RESNET_LAYERS}


def loaded(name: str, seed: int, n_test: int) -> Any:
    """A data set, cut down where few test examples are asked for."""
    import svae

    data: Any = svae.data.MNIST(seed=seed) if name == "mnist" else svae.data.CIFAR10(seed=seed)
    if n_test < len(data.test):
        data.train = data.train.subset(torch.arange(10 * n_test))
        data.validation = data.validation.subset(torch.arange(n_test))
    return data


def subject(name: str, seed: int, n_test: int) -> tuple[Any, Any]:
    """A frozen network and its data."""
    if name == "lenet":
        return networks.LeNet.trained(), loaded("mnist", seed, n_test)
    return networks.ResNet20.trained(), loaded("cifar10", seed, n_test)


def layer(name: str, where: str, seed: int, steps: int, n_test: int) -> dict[str, Any]:
    """A bridge with the class alone at one layer: is the answer kept?"""
    import svae
    from svae.editing import response
    from svae.training.running import lasting

    net, data = subject(name, seed, n_test)
    torch.manual_seed(seed)
    frozen = svae.Frozen(net, where, x_shape=data.x_shape)
    before = frozen.fingerprint
    bridge = svae.ConceptBridge(frozen, svae.bridges.Classes())
    start = time.perf_counter()
    svae.fit(bridge, data, seed=seed, enable_progress_bar=False, **lasting(data, steps))
    seconds = time.perf_counter() - start
    x = data.test.floats(limit=n_test)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        responses = [response(bridge, part, "residual", 5, generator) for part in x.split(200)]
        digit = response(bridge, x[: min(200, n_test)], "class", 50, generator)
        representation = frozen.representation(x[: min(1000, n_test)])
        found = {
            "answer_kept": float(torch.cat([one.kept for one in responses]).mean()),
            "residual_entropy": float(torch.cat([one.entropy for one in responses]).mean()),
            "class_entropy": float(digit.entropy.mean()),
            "round_trip": bridge.round_trip_error(representation),
            "scale": float(representation.abs().max()),
            "nll_per_dim": float(
                -bridge.log_prob(representation).mean() / bridge.built()[1].n_features
            ),
        }
    assert frozen.fingerprint == before, "the frozen network has changed"
    return found | {
        "units": bridge.built()[1].n_units,
        "coordinates": bridge.built()[1].n_features,
        "class_dims": bridge.dims["class"],
        "seconds": round(seconds, 1),
    }


def generation(name: str, seed: int, epochs: int, steps: int, n_test: int) -> dict[str, float]:
    """An autoencoder as a generator: standardised normal codes against draws through the flow."""
    import svae
    from svae.judge import load_judge
    from svae.metrics import frechet_distance
    from svae.training import Recipe
    from svae.training.running import lasting

    data = loaded(name, seed, n_test)
    features: Callable[[Any], Any] = (
        load_judge(data).features if name == "mnist" else networks.squeezenet_features()
    )
    torch.manual_seed(seed)
    n_code = CODES[name]
    autoencoder = svae.bridges.Autoencoder(data.x_shape, n_code=n_code, noise=NOISE[name])
    fast = Recipe(learning_rate=5e-3)
    with data.batches_of(64):
        svae.fit(
            autoencoder, data, seed=seed, recipe=fast, max_epochs=epochs, enable_progress_bar=False
        )
    # Codes of natural pictures are correlated: the flow starts from their principal components.
    whole = {"max_features": n_code // 2, "max_components": n_code} if name == "cifar10" else {}
    bridge = svae.ConceptBridge(svae.Frozen.autoencoder(autoencoder), **whole)
    svae.fit(
        bridge,
        data,
        seed=seed,
        # The largest flow has the fewest pictures: it overfits at once at the higher rate.
        recipe=fast if name == "mnist" else Recipe(learning_rate=1e-3),
        enable_progress_bar=False,
        **lasting(data, steps),
    )
    generator = torch.Generator().manual_seed(seed)
    real = data.test.floats(limit=n_test)
    with torch.no_grad():
        train = data.train.floats(limit=10_000)
        codes = torch.cat([autoencoder.encode(part) for part in train.split(500)])
        normal = torch.randn(len(real), n_code, generator=generator) * codes.std(0) + codes.mean(0)
        drawn = bridge.to_representation(bridge.draw(len(real), generator=generator))
        own = torch.cat([autoencoder.encode(part) for part in real.split(500)])

        def seen(pictures: Any) -> Any:
            return torch.cat([features(part) for part in pictures.split(250)])

        def decoded(some: Any) -> Any:
            return torch.cat([autoencoder.decode(part) for part in some.split(500)])

        reference = seen(real)
        found = {
            f"fid_{kind}": frechet_distance(reference, seen(decoded(some))).value
            for kind, some in (("normal", normal), ("flow", drawn), ("reconstruction", own))
        }
        found["fid_train"] = frechet_distance(reference, seen(train[: len(real)])).value
    return found | {"ratio": found["fid_normal"] / found["fid_flow"]}


def coloured(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The numbers of the experiment on coloured digits."""
    from experiments.colour_mnist_concepts import main as experiment

    out = options.runs / "concepts" / f"coloured_{'quick_' * options.quick}{seed}"
    given = ["--dataset", options.coloured, "--seed", str(seed), "--out", str(out)]
    if options.quick:
        given += ["--quick", "--max-epochs", "1"]
    return experiment([*given, "--no-pictures"])


def natural(options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of the experiment on natural pictures."""
    from experiments.natural_concepts import main as experiment

    given = ["--out", str(options.runs / "concepts" / f"natural{'_quick' * options.quick}")]
    if options.quick:
        given += ["--dataset", "digits", "--quick", "--max-epochs", "1"]
    return experiment(given)


def claims_of(
    layers: dict[str, list[dict[str, Any]]],
    made: dict[str, list[dict[str, float]]],
    found: list[dict[str, Any]],
    rows: dict[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """Every claim with its values by seed; of the other layers only what goes wrong."""
    claims = []
    for part, target in (("digit", "> 0.9"), ("colour", "< 0.05"), ("residual", "< 0.05")):
        text = (
            "normalised entropy of the frozen coloured-digit classifier's answers when the "
            f"{part} is resampled"
        )
        values = [one[f"response_entropy_{part}"] for one in found]
        claims.append(claim(f"concepts.response.{part}", text, target, values))
    kept = "share of frozen answers kept when the residual is resampled"
    values = [one["answer_kept"] for one in found]
    claims.append(claim("concepts.kept.coloured", f"{kept}, coloured digits", ">= 0.99", values))
    for name, target in (("lenet", ">= 0.99"), ("resnet20", ">= 0.97")):
        values = [one["answer_kept"] for one in layers.get(name, [])]
        text = f"{kept}, {name} at {MAIN[name]}"
        claims.append(claim(f"concepts.kept.{name}", text, target, values))
    for part in ("digit", "colour", "residual"):
        for read in ("digit", "colour"):
            state = "the swapped" if read == part else "the kept"
            text = f"share of swaps of the {part} after which {state} {read} is read by the judge"
            values = [one[f"swap_{part}_{read}_read"] for one in found]
            claims.append(claim(f"concepts.swap.{part}.{read}", text, ">= 0.95", values))
    for name, runs in made.items():
        features = {"mnist": "judge features", "cifar10": "SqueezeNet features"}[name]
        text = f"FID of normal codes over that of draws through the flow, {name}, {features}"
        values = [one["ratio"] for one in runs]
        claims.append(claim(f"concepts.generation.{name}", text, ">= 2", values))
    trips = [one["round_trip"] for runs in layers.values() for one in runs]
    trips += [one["round_trip_error"] for one in found]
    trips += [one["round_trip"] for one in rows.values()]
    text = "largest error of a unit by way of concepts and back, float32, worst of all bridges"
    trip = claim("concepts.round_trip", text, "<= 1e-4", [max(trips)] if trips else [])
    if trips:  # the digits that rounding would take from a small number
        shown = float(f"{max(trips):.3g}")
        trip |= {"measured": shown, "values": [shown]}
    return [*claims, trip]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A row for each layer of each network."""
    lines = [
        "| network | layer | units | coordinates | class dims | answer kept | entropy, class "
        "resampled | round trip | over the largest unit | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        network, where = name.split(".")
        lines.append(
            f"| {network} | {where} | {row['units']} | {row['coordinates']} | {row['class_dims']} "
            f"| {row['answer_kept']:.4f} | {row['class_entropy']:.3f} | {row['round_trip']:.1e} "
            f"| {row['round_trip'] / row['scale']:.1e} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def natural_table(one: dict[str, Any]) -> str:
    """What the frozen network answers to natural pictures that were moved, with intervals."""
    rows = {
        "test_accuracy": "pictures themselves",
        "reconstruction_accuracy": "reconstructions",
        "response_kept_residual": "residual drawn anew: answer kept",
        "response_kept_class": "class drawn anew: answer kept",
        "class_arrives": "class of another picture: its answer arrives",
    }
    lines = ["| of natural pictures | share | 95 % interval |", "|---|---|---|"]
    for name, text in rows.items():
        low, high = one[f"{name}_low"], one[f"{name}_high"]
        lines.append(f"| {text} | {one[name]:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims and the table of the documentation."""
    parser = argparse.ArgumentParser(description="Concept bridges on frozen networks.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of each bridge")
    parser.add_argument("--layer-steps", type=int, default=200, help="of those of other layers")
    parser.add_argument("--coloured", default="mnist", choices=["mnist", "digits"])
    parser.add_argument("--networks", nargs="*", default=["lenet", "resnet20"])
    parser.add_argument("--generators", nargs="*", default=["mnist", "cifar10"])
    parser.add_argument("--only", help="main, generation, coloured, natural or layers")
    parser.add_argument("--quick", action="store_true", help="small settings, for tests")
    parser.add_argument("--have", action="store_true", help="write what is finished, run nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "concepts.json")
    tables = ROOT / "docs" / "_tables"
    parser.add_argument("--table", type=Path, default=tables / "concepts.md")
    options = parser.parse_args(arguments)
    kind = f"recipe{RECIPE}{'_quick' * options.quick}"
    runs, n_test = options.runs / "concepts" / kind, 200 if options.quick else 10_000

    def wanted(part: str) -> bool:
        return options.only in (None, part)

    def measured(path: Path, measure: Callable[[], Any]) -> list[Any]:
        """One run, or none where it is not finished and nothing is to be run."""
        return [] if options.have and not path.exists() else [finished(path, measure)]

    def explained(name: str, where: str, seed: int) -> list[dict[str, Any]]:
        steps = options.steps if where == MAIN[name] else options.layer_steps
        path = runs / f"{name}_{where}_{seed}_{steps}.json"
        return measured(path, lambda: layer(name, where, seed, steps, n_test))

    layers = {
        name: [one for seed in options.seeds for one in explained(name, MAIN[name], seed)]
        for name in (options.networks if wanted("main") else ())
    }
    made: dict[str, list[dict[str, float]]] = {}
    # An epoch of the quick set is fifteen steps.
    epochs = {"mnist": 10 if options.quick else 5, "cifar10": 10 if options.quick else 6}
    for name in options.generators if wanted("generation") else ():
        for seed in options.seeds:
            path = runs / f"generation_{name}_{seed}_{options.steps}.json"
            made.setdefault(name, []).extend(
                measured(
                    path,
                    lambda s=seed, n=name: generation(n, s, epochs[n], 2 * options.steps, n_test),
                )
            )
    painted = [
        one
        for seed in (options.seeds if wanted("coloured") else ())
        for one in measured(runs / f"coloured_{seed}.json", lambda s=seed: coloured(options, s))
    ]
    rows = {
        f"{name}.{where}": one
        for name in (options.networks if wanted("layers") else ())
        for where in LAYERS[name][: 2 if options.quick else None]
        for one in explained(name, where, options.seeds[0])
    }
    shown = (
        measured(runs / "natural_0.json", lambda: natural(options)) if wanted("natural") else []
    )
    if options.only is None:
        claims = claims_of(layers, made, painted, rows)
        write(
            command("concepts", arguments),
            claims,
            options.out,
            layers=rows,
            generation=made,
            coloured=painted,
            natural=shown,
        )
        options.table.write_text(table(rows), encoding="utf-8")
        if shown:
            beside = options.table.with_name(f"{options.table.stem}_natural.md")
            beside.write_text(natural_table(shown[0]), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What bridges beside frozen classifiers find, what it costs, and whether it is true.

Question: are draws on the fibre of their layer and do they keep the answer; is the colour of a
colour-blind model's draws distributed as real colours are; what does one more draw cost?
Expectation: nearly everything is known at the first layer and little at the logits; draws are
nearer to the layer's view of an image than any other real image; and a draw takes milliseconds.
Cost: an hour a seed for LeNet, with the weights of its fibre term and the seconds, half an hour
for ResNet-20, twenty minutes for what is known. Finished runs are kept.

    python benchmarks/invariances.py                # writes benchmarks/results/invariances.json

LeNet (MNIST) and ResNet-20 (CIFAR-10) have weights of other people, in ``$SVAE_DATA/models``.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.concepts import loaded  # noqa: E402
from benchmarks.evidence import claim, command, finished_parts, put_between, write  # noqa: E402
from experiments import networks  # noqa: E402

LAYERS = {
    "lenet": ("conv1", "conv2", "pool2", "relu", "ip2"),
    "resnet20": ("relu", "layer1", "layer2", "layer3", "mean", "linear"),
}
MIDDLE = {"lenet": "pool2", "resnet20": "layer3"}
LOGITS = {"lenet": "ip2", "resnet20": "linear"}
WEIGHTS = (0.0, 3.0, 30.0, 100.0)  # of the fibre term; two of them with --quick


def within(name: str, one: dict[str, Any]) -> list[str]:
    """Layers of a network that a run has measured, first to last."""
    return [layer for layer in LAYERS[name] if f"{layer}.kept" in one]


def settings(options: argparse.Namespace, **more: Any) -> Any:
    """The defaults, or a few steps."""
    from svae.explaining import ExplainSettings

    quick = {"n_code": 12, "autoencoder_steps": 30, "bridge_steps": 15}
    return ExplainSettings(**(quick if options.quick else more))


def layers(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """A profile of a network, and what it took."""
    import svae
    from svae.explaining import ExplainSettings
    from svae.profiling import layer_profile

    whole = name == "lenet" or options.quick
    how = settings(options) if whole else ExplainSettings.natural()
    n_test = 200 if options.quick else 10_000
    net = networks.LeNet.trained() if name == "lenet" else networks.ResNet20.trained()
    data = loaded("mnist" if name == "lenet" else "cifar10", seed, n_test)
    first = LAYERS[name][0]
    where = (first, MIDDLE[name], LOGITS[name]) if options.quick else LAYERS[name]
    frozen = svae.Frozen(net, first, x_shape=data.x_shape)
    before, started = frozen.fingerprint, time.perf_counter()
    profile = layer_profile(
        frozen,
        data,
        where,
        settings=how,
        n_images=100 if options.quick else 1000,
        seed=seed,
        cache=options.runs / "invariances" / "cache",
        enable_progress_bar=False,
    )
    assert frozen.fingerprint == before, "the frozen network has changed"
    return {**profile.flat(), "seconds": round(time.perf_counter() - started, 1)}


def colours(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Colours of a colour-blind classifier's draws against the colours of real pictures."""
    import svae
    from svae.data.coloured import decoloured, read_colour
    from svae.judge import load_judge

    base = svae.data.choose("digits" if options.quick else "mnist", seed=seed)
    data = svae.data.ColouredDigits(base, "mixture", seed=seed)
    judge = load_judge(base)

    class Blind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.judge = judge

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.judge(decoloured(x))

    frozen = svae.Frozen(Blind(), "judge.trunk", x_shape=data.x_shape)
    bridge = svae.explain(
        frozen,
        data,
        settings=settings(options),
        seed=seed,
        cache=options.runs / "invariances" / "cache",
        enable_progress_bar=False,
    )
    x, true = data.test.floats(limit=2000), data.test.factors
    assert true is not None
    n = len(x)
    drawn = svae.resample_nuisance(bridge, x, 10, torch.Generator().manual_seed(seed))
    seen = read_colour(drawn.flatten(0, 1))
    floor = wasserstein(true[:n], data.train.factors[:n])  # pyright: ignore
    found = wasserstein(seen, data.train.factors)  # pyright: ignore
    with torch.no_grad():
        again = read_colour(svae.reconstruct(bridge, x))
    reconstructed = wasserstein(again, data.train.factors)  # pyright: ignore
    return {
        "wasserstein": found,
        "floor": floor,
        "ratio": found / floor,
        "reconstructed_ratio": reconstructed / floor,
    }


def wasserstein(a: torch.Tensor, b: torch.Tensor) -> float:
    """Wasserstein-1 between two samples, the mean over channels."""
    from scipy.stats import wasserstein_distance

    pairs = zip(a.T.numpy(), b.T.numpy(), strict=True)
    return float(sum(wasserstein_distance(one, other) for one, other in pairs) / a.shape[1])


def lenet_bridge(
    layer: str, data: Any, seed: int, options: argparse.Namespace, **changes: float
) -> Any:
    """A bridge at a layer of LeNet, kept."""
    import svae
    from svae.explaining import fit_bridge

    return fit_bridge(
        svae.Frozen(networks.LeNet.trained(), layer, x_shape=data.x_shape),
        data,
        settings=replace(settings(options), **changes),
        seed=seed,
        cache=options.runs / "invariances" / "cache",
        enable_progress_bar=False,
    )


def cost(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of one more draw, and of an input optimised to the same fibre loss."""
    data = loaded("mnist", seed, 200 if options.quick else 10_000)
    found = {}
    for kind, layer in (("middle", MIDDLE[name]), ("logits", LOGITS[name])):
        bridge = lenet_bridge(layer, data, seed, options)
        x = data.test.floats(limit=64)
        with torch.no_grad():
            representation = bridge.frozen.representation(x)
            generator = torch.Generator().manual_seed(seed)
            times = []
            for _ in range(5):
                start = time.perf_counter()
                drawn = bridge.show(bridge.sample_codes(representation, 1, generator)[0])
                times.append(time.perf_counter() - start)
            wanted = float(bridge.fibre_loss(drawn, representation).mean())
        seconds, reached = metamers(bridge, representation, x.shape, wanted, options.quick)
        draw = sorted(times)[2]
        found |= {
            f"{kind}_draw_ms": 1000 * draw / len(x),
            f"{kind}_metamer_ms": 1000 * seconds / len(x),
            f"{kind}_fibre_loss": wanted,
            f"{kind}_metamer_fibre_loss": reached,
            f"{kind}_ratio": seconds / draw,
        }
    return found


def metamers(
    bridge: Any, representation: torch.Tensor, shape: Any, wanted: float, quick: bool
) -> tuple[float, float]:
    """Seconds of Adam on the pixels of a batch until the mean fibre loss is as wanted."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    start, reached = time.perf_counter(), float("inf")
    for _ in range(20 if quick else 3000):
        loss = bridge.fibre_loss(logits.sigmoid(), representation)
        reached = float(loss.detach().mean())
        if reached <= wanted:
            break
        optimizer.zero_grad()
        loss.square().sum().backward()
        optimizer.step()
    return time.perf_counter() - start, reached


def truth(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Known invariances, judged."""
    from experiments.known_invariances import main as experiment

    given = ["--seed", str(seed), "--out", str(options.runs / "invariances" / "known")]
    return experiment([*given, "--quick", "--shortcuts", "1"] if options.quick else given)


def weights(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """What the weight of the fibre term gives and takes, LeNet's middle layer and logits."""
    from svae.fibres import fibre_losses, variance_explained
    from svae.metrics import preservation

    data = loaded("mnist", seed, 200 if options.quick else 10_000)
    x = data.test.floats(limit=100 if options.quick else 1000)
    found = {}
    for weight in WEIGHTS[: 2 if options.quick else None]:
        for layer in (MIDDLE["lenet"], LOGITS["lenet"]):
            bridge = lenet_bridge(layer, data, seed, options, fibre_weight=weight)
            generator = torch.Generator().manual_seed(seed)
            drawn, again = fibre_losses(bridge, x, 4, generator)
            found |= {
                f"{layer}.{weight:g}.fibre_loss": drawn.value,
                f"{layer}.{weight:g}.fibre_loss_reconstructed": again.value,
                f"{layer}.{weight:g}.kept": preservation(
                    bridge, x, bridge.predict, 4, generator
                ).value,
                f"{layer}.{weight:g}.variance_explained": variance_explained(
                    bridge, x[:500], 32, generator
                ).value,
            }
    return found


def seconds(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """What ``svae.explain`` takes for a first layer and for another, nothing kept from before."""
    import svae

    data = loaded("mnist", seed, 200 if options.quick else 10_000)
    found = {}
    with TemporaryDirectory() as cache:
        for kind, layer in (("first", MIDDLE["lenet"]), ("further", LOGITS["lenet"])):
            frozen = svae.Frozen(networks.LeNet.trained(), layer, x_shape=data.x_shape)
            started = time.perf_counter()
            bridge = svae.explain(
                frozen,
                data,
                settings=settings(options),
                seed=seed,
                cache=cache,
                enable_progress_bar=False,
            )
            svae.resample_nuisance(bridge, data.test.floats(limit=10), 8)
            found[kind] = round(time.perf_counter() - started, 1)
    return found


def resamples(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of 10,000 resamples of one image, by device."""
    import svae

    data = loaded("mnist", seed, 200 if options.quick else 10_000)
    bridge = lenet_bridge(MIDDLE["lenet"], data, seed, options)
    n, x = 100 if options.quick else 10_000, data.test.floats(limit=1)
    taken: dict[str, list[float]] = {"cpu": [], "cuda": []}
    for _ in range(6):  # in turn; the first of each warms up
        for device, times in taken.items():
            bridge, there = bridge.to(device), x.to(device)
            start = time.perf_counter()
            svae.resample_nuisance(bridge, there, n).cpu()
            times.append(time.perf_counter() - start)
    medians = {device: sorted(times[1:])[2] for device, times in taken.items()}
    return {**medians, "ratio": medians["cpu"] / medians["cuda"]}


def of_nearest(layer: str) -> Callable[[dict[str, Any]], float]:
    """Fibre loss of draws over that of the nearest real image."""
    return lambda one: one[f"{layer}.fibre_loss"] / one[f"{layer}.fibre_loss_nearest"]


def lost(name: str) -> Callable[[dict[str, Any]], float]:
    """Answers that draws lose and reconstructions do not, at the worst layer."""
    return lambda one: max(one["reconstructed"] - one[f"{k}.kept"] for k in within(name, one))


def rises(one: dict[str, Any]) -> float:
    """Layers of LeNet that seem to know more than the one before."""
    known = [one[f"{layer}.information"] for layer in within("lenet", one)]
    return float(sum(after > before for before, after in pairwise(known)))


def explained(one: dict[str, Any]) -> float:
    """Variance explained by v at LeNet's logits, over that at its first layer."""
    first, last = (one[f"{k}.variance_explained"] for k in (LAYERS["lenet"][0], LOGITS["lenet"]))
    return last / first


Row = tuple[str, str, str, str, Callable[[dict[str, Any]], float]]
_MIDDLE, _LAST, _FIRST = MIDDLE["lenet"], LOGITS["lenet"], LAYERS["lenet"][0]
# Id, text, target, part, and the number of one run.
CLAIMS: tuple[Row, ...] = (
    (
        "colour",
        "Wasserstein-1 per channel between colours of a colour-blind classifier's draws and real "
        "ones, over the real-against-real floor",
        "<= 2",
        "colours",
        lambda one: one["ratio"],
    ),
    (
        "fibre.middle",
        "fibre loss of draws over that of the nearest of 10,000 real images, LeNet's second pool",
        "<= 0.7",
        "lenet",
        of_nearest(_MIDDLE),
    ),
    ("fibre.logits", "the same, LeNet's logits", "<= 1", "lenet", of_nearest(_LAST)),
    (
        "kept.logits",
        "share of answers that draws keep, LeNet's logits",
        ">= 0.97",
        "lenet",
        lambda one: one[f"{_LAST}.kept"],
    ),
    (
        "kept.middle",
        "share of answers that draws keep, LeNet's second pool",
        ">= 0.98",
        "lenet",
        lambda one: one[f"{_MIDDLE}.kept"],
    ),
    (
        "lost.lenet",
        "answers kept by reconstructions and lost by draws, LeNet's worst layer",
        "<= 0.015",
        "lenet",
        lost("lenet"),
    ),
    (
        "lost.resnet20",
        "answers kept by reconstructions and lost by draws, ResNet-20's worst layer",
        "<= 0.05",
        "resnet20",
        lost("resnet20"),
    ),
    (
        "explained.first",
        "share of the code's variance explained by v, LeNet's first layer",
        "< 0.05",
        "lenet",
        lambda one: one[f"{_FIRST}.variance_explained"],
    ),
    ("explained.ratio", "the same, logits over first layer", ">= 10", "lenet", explained),
    (
        "information",
        "layers of LeNet that seem to know more of the code than the one before",
        "<= 0",
        "lenet",
        rises,
    ),
    (
        "draw",
        "milliseconds of one more draw, 28x28, LeNet's logits",
        "<= 5",
        "cost",
        lambda one: one["logits_draw_ms"],
    ),
    (
        "metamer.logits",
        "time of an input optimised by Adam to the same fibre loss, over that of a draw, LeNet's "
        "logits",
        ">= 50",
        "cost",
        lambda one: one["logits_ratio"],
    ),
    (
        "metamer.middle",
        "the same, LeNet's second pool",
        ">= 500",
        "cost",
        lambda one: one["middle_ratio"],
    ),
    (
        "known",
        "share of factors of networks with known invariances that are judged right",
        ">= 1",
        "truth",
        lambda one: one["judged_right"] / one["judged"],
    ),
    (
        "shortcut",
        "planted shortcuts in the colour, and honest classifiers, that are judged wrong, of ten",
        "<= 0",
        "truth",
        lambda one: float(sum("shortcut" in name or "honest" in name for name in one["wrong"])),
    ),
    (
        "first.seconds",
        "seconds of `svae.explain` on MNIST and LeNet, default settings, one layer, fastest run",
        "<= 600",
        "seconds",
        lambda one: one["first"],
    ),
    (
        "further.seconds",
        "the same for a further layer",
        "<= 120",
        "seconds",
        lambda one: one["further"],
    ),
)


def claims_of(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Every claim with its values by seed."""
    return [
        claim(f"invariances.{name}", text, target, [of(one) for one in found.get(part, [])])
        for name, text, target, part, of in CLAIMS
    ]


def gpu_claim(runs: list[dict[str, float]]) -> dict[str, Any]:
    """What a GPU gains; it has a file of its own, as the machine is another one."""
    text = "seconds of 10,000 resamples of one image on a CPU over those on a GPU"
    made = claim("invariances.gpu", text, ">= 20", [one["ratio"] for one in runs])
    return made if runs else {**made, "why": "no GPU"}


def known_table(runs: list[dict[str, Any]]) -> str:
    """What each network is found to use and to ignore, with the share that decides it.

    Means over seeds, and over the classifiers of a kind; a verdict that is wrong in any run is
    marked.
    """
    from experiments.known_invariances import GROUPS, SUBJECTS, USED

    rows = {name: [name] for name in SUBJECTS}
    n_shortcuts = sum(key.startswith("shortcut") for key in runs[0]) // len(GROUPS)
    for kind, title in (("shortcut", "planted shortcut"), ("honest", "honest classifier")):
        rows[f"{title}, {n_shortcuts} networks"] = [f"{kind} {i}" for i in range(n_shortcuts)]
    lines = [f"| network | {' | '.join(GROUPS)} |", "|---" * (1 + len(GROUPS)) + "|"]
    for title, names in rows.items():
        cells = []
        for factor in GROUPS:
            keys = [f"{name.replace(' ', '_')}.{factor}" for name in names]
            share = sum(one[key] for one in runs for key in keys) / (len(runs) * len(keys))
            wrong = any(f"{name}: {factor}" in one["wrong"] for one in runs for name in names)
            verdict = "used" if share >= USED else "ignored"
            known = names[0] in SUBJECTS or factor == "colour"
            cells.append(f"{share:.2f} {verdict}{', **wrong**' * wrong}" if known else "")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def weights_table(runs: list[dict[str, float]]) -> str:
    """A row for each layer and weight of the fibre term, means over seeds."""
    lines = [
        "| layer | weight | fibre loss | of reconstructions | answer kept | variance explained |",
        "|---" * 6 + "|",
    ]
    for layer in (MIDDLE["lenet"], LOGITS["lenet"]):
        for weight in (w for w in WEIGHTS if f"{layer}.{w:g}.kept" in runs[0]):
            names = ("fibre_loss", "fibre_loss_reconstructed", "kept", "variance_explained")
            cells = [
                f"{sum(one[f'{layer}.{weight:g}.{name}'] for one in runs) / len(runs):.3f}"
                for name in names
            ]
            lines.append(f"| {layer} | {weight:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row for each layer of each network, of the first seed."""
    lines = [
        "| network | layer | answer kept | by reconstructions | variance explained by v | known, "
        "nats | fibre loss | of reconstructions | of the nearest real image | diversity |",
        "|---" * 10 + "|",
    ]
    for name in LAYERS:
        for one in found.get(name, [])[:1]:
            for layer in within(name, one):
                number = {
                    key.removeprefix(f"{layer}."): value
                    for key, value in one.items()
                    if key.startswith(f"{layer}.")
                }
                lines.append(
                    f"| {name} | {layer} | {number['kept']:.3f} | {one['reconstructed']:.3f} "
                    f"| {number['variance_explained']:.3f} | {number['information']:.1f} "
                    f"| {number['fibre_loss']:.3f} | {number['fibre_loss_reconstructed']:.3f} "
                    f"| {number['fibre_loss_nearest']:.3f} | {number['diversity']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims and the table of the documentation."""
    parser = argparse.ArgumentParser(description="Invariances of frozen networks.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parts: dict[str, Callable[[int, argparse.Namespace], dict[str, Any]]] = {
        "lenet": lambda seed, options: layers("lenet", seed, options),
        "resnet20": lambda seed, options: layers("resnet20", seed, options),
        "colours": colours,
        "cost": lambda seed, options: cost("lenet", seed, options),
        "truth": truth,
        "weights": weights,
        "seconds": seconds,
        "resamples": resamples,
    }
    parser.add_argument("--parts", nargs="*", choices=[*parts], default=[*parts])
    parser.add_argument("--have", action="store_true", help="write what is finished, run nothing")
    parser.add_argument("--quick", action="store_true", help="small settings, for tests")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results, tables = ROOT / "benchmarks" / "results", ROOT / "docs" / "_tables"
    parser.add_argument("--out", type=Path, default=results / "invariances.json")
    parser.add_argument("--table", type=Path, default=tables / "invariances.md")
    parser.add_argument("--page", type=Path, help="with the marks of the table; the README")
    options = parser.parse_args(arguments)
    if options.page is None and not options.quick:
        options.page = ROOT / "README.md"
    from svae.explaining import RECIPE

    # What was measured of other networks, or in short, is measured again.
    kind = f"recipe{RECIPE}{'_quick' * options.quick}"
    folder = options.runs / "invariances" / kind
    possible = [p for p in options.parts if p != "resamples" or torch.cuda.is_available()]
    found = finished_parts(
        lambda part, seed: parts[part](seed, options),
        dict.fromkeys(possible, options.seeds),
        folder,
        options.have,
    )
    on_gpu = found.pop("resamples", [])
    beside = options.out.with_name(f"{options.out.stem}_cuda.json")
    if on_gpu or not beside.exists():
        write(command("invariances", arguments), [gpu_claim(on_gpu)], beside, resamples=on_gpu)
    write(command("invariances", arguments), claims_of(found), options.out, **found)
    options.table.write_text(table(found), encoding="utf-8")
    if found.get("weights"):
        beside = options.table.with_name(f"{options.table.stem}_weights.md")
        beside.write_text(weights_table(found["weights"]), encoding="utf-8")
    if found.get("truth") and options.page is not None:
        put_between(options.page, "known invariances", known_table(found["truth"]))


if __name__ == "__main__":
    main()

"""What does each layer of a trained classifier ignore?

Question: which changes of an image does a layer not see, and how much does it still know?
Expectation: the first layers know nearly everything of the image, and draws are near-copies; from
layer to layer slant, thickness and shape are let go, until the logits know little but the class.
Everywhere the network's own answer stays as it was.
Cost: two minutes on the digits, twenty on MNIST, an hour on CIFAR-10, on two cores; networks that
are trained are kept, so that a second run takes a few minutes.

    python experiments/explain_classifier.py                     # the LeNet of $SVAE_DATA/models
    python experiments/explain_classifier.py --dataset digits    # a classifier trained here
    python experiments/explain_classifier.py --dataset cifar10   # the ResNet-20 of the same folder

The classifier is never changed. An autoencoder is trained once, and a conditional flow for each
layer; both are kept in $SVAE_CACHE. A concept bridge on the code names what the layers let go, and
one at the last layer but the logits moves the representation itself to another class.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(description="What each layer of a classifier ignores.")
    options.add_argument(
        "--dataset", default="auto", choices=["auto", "mnist", "digits", "cifar10"]
    )
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--layers", nargs="*", help="names, from input to logits")
    options.add_argument("--out", default="runs/explain_classifier")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-epochs", type=int, help="of each training, at most")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few steps and images, for tests")
    options.add_argument("--no-pictures", action="store_true", help="numbers only")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Explains, measures, draws; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()

    import svae
    from svae.auditing import Audit
    from svae.judge import load_judge
    from svae.metrics import accuracy
    from svae.profiling import layer_profile
    from svae.saving import writable

    logging.basicConfig(format="%(message)s")
    logging.getLogger("svae").setLevel(logging.INFO)
    out = writable(options.out)
    data = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    net, layers = classifier(data, options)
    frozen = svae.Frozen(net, layers[0] if layers else "head", x_shape=data.x_shape)
    x, y = data.test.floats(), data.test.y
    predicted = svae.factorization.in_batches(frozen.predict, x)
    right = accuracy(predicted, y)
    print(f"{data.name}: the classifier answers {right.value:.4f} of the test labels right")

    settings = chosen_settings(data, options)
    trainer = {
        "accelerator": options.device,
        "devices": 1,
        "enable_progress_bar": False,
    }
    profile = layer_profile(
        frozen,
        data,
        options.layers or layers,
        settings=settings,
        n_images=100 if options.quick else 1000,
        seed=options.seed,
        **trainer,
    )
    metrics: dict[str, Any] = {"dataset": data.name, "seed": options.seed}
    metrics |= {**Audit({"test_accuracy": right}).flat(), **profile.flat()}
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    write(metrics, out)  # a picture that fails loses no number
    print(f"\nanswers kept by plain reconstructions: {profile.reconstructed.value:.3f}\n")
    print(profile.table())
    named = concepts_of_code(frozen, profile, data, settings, options, trainer)
    shares = fixed(profile, named, x, options)
    for layer, row in shares.items():
        metrics |= Audit({f"{layer}.fixes_{name}": one for name, one in row.items()}).flat()
    write(metrics, out)
    print(table(shares))
    last = profile.bridges[profile.layers[-1]]
    last.save(out)
    if not options.no_pictures:
        plots, judge = svae.plots, load_judge(data)  # of natural pictures: ten minutes, once
        first = [int((y == k).nonzero()[0]) for k in range(min(3, data.n_classes))]
        second = x[[int((y == k).nonzero()[1]) for k in range(6)]]
        pictures = {
            "profile": plots.profile(profile),
            "concepts": plots.layer_shares(shares),
            "invariances": plots.layer_invariances(profile.bridges, x[first], seed=options.seed),
            "attacks": attacks(frozen, profile, data, judge, x, options),
            "swaps": plots.swap_grid(last, second),
            "edits": edits(profile, data, settings, second, options, trainer),
        }
        if data.x_shape[0] == 3:
            pictures |= shifts(profile, data, judge, second)
        for name, figure in pictures.items():
            plots.save(figure, out / f"{name}.png")
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    write(metrics, out)
    print(f"{metrics['seconds_total']:.0f} s; everything is in {out}/")
    return metrics


def chosen_settings(data: Any, options: argparse.Namespace) -> Any:
    """The defaults, or principal components for natural pictures; or few steps."""
    from dataclasses import replace

    from svae.explaining import ExplainSettings

    settings = ExplainSettings.natural() if data.x_shape[0] == 3 else ExplainSettings()
    if options.quick:
        settings = ExplainSettings(n_code=12, autoencoder_steps=60, bridge_steps=30)
    if options.max_epochs is not None:
        steps = options.max_epochs * max(1, len(data.train) // settings.batch_size)
        settings = replace(
            settings,
            autoencoder_steps=min(settings.autoencoder_steps, steps),
            bridge_steps=min(settings.bridge_steps, max(1, steps // 2)),
        )
    return settings


def fit_concepts(
    bridge: Any, data: Any, settings: Any, options: argparse.Namespace, trainer: dict[str, Any]
) -> None:
    """As long as a bridge of a layer."""
    from svae.training import fit_steps

    steps, batch_size = settings.bridge_steps, 2 * settings.batch_size
    fit_steps(bridge, data, steps, batch_size, seed=options.seed, **trainer)


def concepts_of_code(
    frozen: Any,
    profile: Any,
    data: Any,
    settings: Any,
    options: argparse.Namespace,
    trainer: dict[str, Any],
) -> Any:
    """The class and what can be sketched, taken apart in the autoencoder's code."""
    import torch

    import svae
    from svae.bridges import Classes, Sketched
    from svae.sketches import Blur, Sketch, Slant, Thickness

    sketches = (
        [
            Sketch("slant", Slant(-20.0), Slant(20.0)),
            Sketch("thickness", Thickness(0.7), Thickness(1.5)),
        ]
        if data.x_shape[0] == 1
        else [Sketch("blur", Blur(0.5), Blur(1.5))]
    )
    n = 100 if options.quick else 4000
    autoencoder = next(iter(profile.bridges.values())).autoencoder
    torch.manual_seed(options.seed)
    bridge = svae.ConceptBridge(
        svae.Frozen.autoencoder(autoencoder, frozen.model),
        [Classes(), *(Sketched(one, n_pictures=n) for one in sketches)],
    )
    fit_concepts(bridge, data, settings, options, trainer)
    return bridge


def fixed(profile: Any, named: Any, x: Any, options: argparse.Namespace) -> dict[str, Any]:
    """By layer, the share of each concept that it fixes."""
    import torch

    from svae.fibres import concept_shares

    some = x[: 50 if options.quick else 500]
    return {
        layer: concept_shares(bridge, named, some, 16, torch.Generator().manual_seed(options.seed))
        for layer, bridge in profile.bridges.items()
    }


def table(shares: dict[str, Any]) -> str:
    """Shares by layer, in Markdown."""
    names = list(next(iter(shares.values())))
    lines = [f"| fixed by | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {layer} | {' | '.join(f'{row[name].value:.2f}' for name in names)} |"
        for layer, row in shares.items()
    ]
    return "\n".join(lines) + "\n"


def edits(
    profile: Any,
    data: Any,
    settings: Any,
    x: Any,
    options: argparse.Namespace,
    trainer: dict[str, Any],
) -> Any:
    """Representations moved from one input's class to another's, all with one v."""
    import svae

    layer = profile.layers[-2 if len(profile.layers) > 1 else -1]
    invariances = profile.bridges[layer]
    bridge = svae.ConceptBridge(invariances.frozen, svae.bridges.Classes())
    fit_concepts(bridge, data, settings, options, trainer)
    bridge.decoder = invariances.decoder()
    return svae.plots.interpolations(bridge, x[:3], x[3:6], ["class"], n=8)


def shifts(profile: Any, data: Any, judge: Any, x: Any) -> dict[str, Any]:
    """What each layer makes of texture without shape, and of pictures from another domain."""
    import svae
    from svae import shifts

    one, other = x[3:4], x[4:5]
    texture = {
        "shape": one,
        "texture": other,
        "shape of the one, texture of the other": shifts.hybrid(one, other),
        "patches in another order": shifts.shuffled_patches(one),
    }
    domains = {
        "photograph": one,
        "without colour": shifts.luminance(one),
        "line drawing": shifts.edges(one),
        "negative": 1 - one,
    }
    return {
        name: svae.plots.perturbed(profile.bridges, versions, judge, data.class_names, n=3)
        for name, versions in (("textures", texture), ("domains", domains))
    }


def attacks(
    frozen: Any, profile: Any, data: Any, judge: Any, x: Any, options: argparse.Namespace
) -> Any:
    """One input, attacked and with noise of the same size, as each layer shows them."""
    import torch

    import svae

    some = x[:50]
    generator = torch.Generator().manual_seed(options.seed)
    answers = frozen.predict(some).argmax(1)
    grey = data.x_shape[0] == 1
    size = 0.2 if grey else 8 / 255  # grey digits withstand more
    moved = svae.attacks.pgd(frozen.predict, some, answers, size, generator=generator)
    fooled = (frozen.predict(moved).argmax(1) != answers).nonzero().flatten().tolist()
    i = fooled[0] if fooled else 0
    noisy = svae.attacks.random_signs(some, size, generator)
    versions = {"clean": some[i : i + 1], "attacked": moved[i : i + 1], "noise": noisy[i : i + 1]}
    return svae.plots.perturbed(profile.bridges, versions, judge, data.class_names)


def write(metrics: dict[str, Any], out: Path) -> None:
    """Writes ``metrics.json``."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def classifier(data: Any, options: argparse.Namespace) -> tuple[Any, tuple[str, ...] | None]:
    """The frozen network where there is one for the data, else a classifier trained here."""
    from experiments import networks
    from svae.judge import train_judge

    known = {"mnist": networks.LeNet, "cifar10": networks.ResNet20}
    layers = {
        "mnist": ("conv1", "conv2", "pool2", "relu", "ip2"),
        "cifar10": ("relu", "layer1", "layer2", "layer3", "mean", "linear"),
    }
    if data.name in known:
        try:
            return known[data.name].trained(), layers[data.name]
        except FileNotFoundError as error:
            print(f"no frozen network ({error}): training a classifier")
    net = train_judge(data, 2 if options.quick else None, options.seed + 100)
    return net, None


if __name__ == "__main__":
    main()

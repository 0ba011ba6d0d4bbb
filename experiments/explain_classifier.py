"""What does each layer of a trained classifier ignore?

Question: which changes of an image does a layer not see, and how much does it still know?
Expectation: the first layers know nearly everything of the image, and draws are near-copies; from
layer to layer slant, thickness and shape are let go, until the logits know little but the class.
Everywhere the network's own answer stays as it was.
Cost: a minute on the digits, fifteen minutes on MNIST, on two cores; a second run is instant.

    python experiments/explain_classifier.py                     # the LeNet of $SVAE_DATA/models
    python experiments/explain_classifier.py --dataset digits    # a classifier trained here

The classifier is never changed. An autoencoder is trained once, and a conditional flow for each
layer; both are kept in $SVAE_CACHE.
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
    options.add_argument("--dataset", default="auto", choices=["auto", "mnist", "digits"])
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
    from svae.explaining import ExplainSettings
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

    settings = (
        ExplainSettings(n_code=12, autoencoder_steps=60, bridge_steps=30)
        if options.quick
        else ExplainSettings()
    )
    if options.max_epochs is not None:  # an epoch of the data, whatever the steps
        steps = options.max_epochs * max(1, len(data.train) // settings.batch_size)
        settings = ExplainSettings(
            settings.n_code,
            min(settings.autoencoder_steps, steps),
            min(settings.bridge_steps, max(1, steps // 2)),
        )
    profile = layer_profile(
        frozen,
        data,
        options.layers or layers,
        settings=settings,
        n_images=100 if options.quick else 1000,
        seed=options.seed,
        accelerator={"cuda": "gpu"}.get(options.device, options.device),
        devices=1,
        enable_progress_bar=False,
    )
    metrics: dict[str, Any] = {"dataset": data.name, "seed": options.seed}
    metrics |= {"test_accuracy": right.value, "test_accuracy_low": right.low}
    metrics |= {"test_accuracy_high": right.high, **profile.flat()}
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(f"\nanswers kept by plain reconstructions: {profile.reconstructed.value:.3f}\n")
    print(profile.table())
    last = profile.bridges[profile.layers[-1]]
    last.save(out)
    if not options.no_pictures:
        plots = svae.plots
        first = [int((y == k).nonzero()[0]) for k in range(min(3, data.n_classes))]
        pictures = {
            "profile": plots.profile(profile),
            "invariances": plots.layer_invariances(profile.bridges, x[first], seed=options.seed),
            "attacks": attacks(frozen, profile, data, x, options),
            "swaps": plots.swap_grid(last, x[[int((y == k).nonzero()[1]) for k in range(6)]]),
        }
        for name, figure in pictures.items():
            plots.save(figure, out / f"{name}.png")
    print(f"{metrics['seconds_total']:.0f} s; everything is in {out}/")
    return metrics


def attacks(frozen: Any, profile: Any, data: Any, x: Any, options: argparse.Namespace) -> Any:
    """One input, attacked and with noise of the same size, as each layer shows them."""
    import torch

    import svae
    from svae.judge import load_judge

    some = x[:50]
    generator = torch.Generator().manual_seed(options.seed)
    answers = frozen.predict(some).argmax(1)
    size = 0.2  # of grey digits, which withstand less
    moved = svae.attacks.pgd(frozen.predict, some, answers, size, generator=generator)
    fooled = (frozen.predict(moved).argmax(1) != answers).nonzero().flatten().tolist()
    i = fooled[0] if fooled else 0
    noisy = svae.attacks.random_signs(some, size, generator)
    versions = {"clean": some[i : i + 1], "attacked": moved[i : i + 1], "noise": noisy[i : i + 1]}
    return svae.plots.perturbed(profile.bridges, versions, load_judge(data), data.class_names)


def classifier(data: Any, options: argparse.Namespace) -> tuple[Any, tuple[str, ...] | None]:
    """The frozen LeNet where there is one for the data, else a classifier that is trained here."""
    from svae.judge import train_judge

    if data.name == "mnist":
        from experiments import networks

        try:
            return networks.LeNet.trained(), ("conv1", "conv2", "pool2", "relu", "ip2")
        except FileNotFoundError as error:
            print(f"no frozen LeNet ({error}): training a classifier")
    net = train_judge(data, 2 if options.quick else None, options.seed + 100)
    return net, None


if __name__ == "__main__":
    main()

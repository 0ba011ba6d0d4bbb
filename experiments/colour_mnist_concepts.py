"""Which concepts does a frozen network hold, and what does it answer when one of them changes?

Question: can the representation of a network that nobody may change be taken apart into "digit",
"colour" and a rest, so that every part can be moved alone?
Expectation: a classifier of coloured digits answers anything when the digit is resampled, and
stays with its answer when colour or residual are; an autoencoder's code swaps digit and colour
between pictures, and becomes a generator.
Cost: two minutes on the digits, about twenty minutes on MNIST, on two cores.

    python experiments/colour_mnist_concepts.py                     # MNIST where it can be had
    python experiments/colour_mnist_concepts.py --dataset digits

Two frozen networks are explained: a classifier of the digit, at its last hidden layer, and an
autoencoder, at its code. Each gets a concept bridge with the digit (by its labels), the colour (by
pairs of other digits in one colour, and of one picture in two) and the residual. The judge of the
pictures is a third network, of the de-coloured picture, beside the colour read off the pixels;
neither has part in any training.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DIGIT, COLOUR, RESIDUAL = "digit", "colour", "residual"
# Epochs of classifier, autoencoder and the two bridges.
EPOCHS = {"mnist": (2, 8, 3, 7), "digits": (20, 60, 40, 60)}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        description="Concepts of frozen networks, on coloured digits."
    )
    options.add_argument("--dataset", default="auto", choices=["auto", "mnist", "digits"])
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--out", default="runs/colour_mnist_concepts")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-epochs", type=int, help="of each training, at most")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few draws and pictures, for tests")
    options.add_argument("--no-pictures", action="store_true", help="numbers only")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, explains, measures, draws; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()

    import torch

    import svae
    from svae.auditing import Audit
    from svae.judge import load_judge, train_judge
    from svae.saving import writable
    from svae.training import Recipe

    out = writable(options.out)
    base = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    data = svae.data.ColouredDigits(base, "uniform", seed=options.seed)
    most = options.max_epochs or 1000
    epochs = [min(most, n) for n in EPOCHS["digits" if base.name == "digits" else "mnist"]]
    torch.manual_seed(options.seed)
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

    classifier = train_judge(data, epochs[0], options.seed + 100)
    say(f"the classifier to explain: validation accuracy {classifier.validation_accuracy:.4f}")
    autoencoder = svae.bridges.Autoencoder(data.x_shape, n_code=64)
    concepts = [svae.bridges.Classes(DIGIT), colour_pairs(base, data, options.seed)]
    with data.batches_of(64):  # as long, and colours twice as exact
        fit(autoencoder, epochs[1], recipe=Recipe(learning_rate=5e-3))
    # A colour is three numbers, and a code bends them.
    code = svae.Frozen.autoencoder(autoencoder, classifier)
    coding = svae.ConceptBridge(code, concepts, dims={COLOUR: 4})
    # Noise, and a weight on reading the digit: without, its dims know training pictures better
    # than others.
    objective = svae.bridges.ConceptObjective(noise=0.05, value_weight=10.0)
    fit(coding, epochs[3], objective=objective)
    answering = svae.ConceptBridge(svae.Frozen(classifier, "trunk"), concepts)
    fit(answering, epochs[2])
    coding.save(out)
    say(f"fitted in {time.perf_counter() - started:.0f} s; measuring")

    judge = load_judge(base)
    result = Audit()
    found = result.numbers
    for name, bridge in (("classifier", answering), ("autoencoder", coding)):
        for part, n_dims in bridge.dims.items():
            found[f"{name}_dims_{part}"] = n_dims
        for part, score in bridge.scores.items():
            found[f"{name}_score_{part}"] = score.value
    n_test = 200 if options.quick else len(data.test)
    with torch.no_grad():
        answers(found, answering, data, n_test, options)
        swaps(found, coding, data, judge, n_test, options)
        generation(found, coding, data, judge, n_test, options)
    metrics = result.flat()
    metrics |= {"dataset": data.name, "seed": options.seed, "max_epochs": max(epochs)}
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    write(metrics, out)  # a picture that fails loses no number
    if not options.no_pictures:
        draw(answering, coding, data, judge, out, options)
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    write(metrics, out)
    report(metrics, out)
    return metrics


def colour_pairs(base: Any, data: Any, seed: int, n: int = 10_000) -> Any:
    """Pictures of any two digits in one colour, and of one picture in any two colours."""
    import torch

    from svae.bridges import Pairs, Together
    from svae.data.batch import as_floats
    from svae.data.coloured import draw_colours, paint

    generator = torch.Generator().manual_seed(seed)
    one, other = (draw_colours(data.colours, n, generator) for _ in range(2))
    rows = torch.randint(len(base.train), (2, n), generator=generator)
    first, second = (as_floats(base.train.x[side]) for side in rows)
    share = Pairs(COLOUR, paint(first, one), paint(second, one))
    return Together([share, Pairs(COLOUR, paint(first, one), paint(first, other), differ=True)])


def answers(found: Any, bridge: Any, data: Any, n_test: int, options: Any) -> None:
    """What the frozen classifier answers when one part is drawn anew."""
    import torch

    import svae
    from svae.metrics import accuracy, mean

    n_draws = 20 if options.quick else 100
    x, y = data.test.floats(limit=n_test), data.test.y[:n_test]
    generator = torch.Generator().manual_seed(options.seed)
    found["test_accuracy"] = accuracy(svae.factorization.in_batches(bridge.predict, x), y)
    some = x[: min(500, n_test)]
    for name in bridge.parts:
        response = svae.editing.response(bridge, some, name, n_draws, generator)
        found[f"response_entropy_{name}"] = mean(response.entropy)
        found[f"response_spread_{name}"] = mean(response.spread)
        found[f"response_kept_{name}"] = mean(response.kept)
    kept = [
        svae.editing.response(bridge, part, RESIDUAL, 1 if options.quick else 5, generator).kept
        for part in x.split(200)
    ]
    found["answer_kept"] = mean(torch.cat(kept))
    representation = bridge.frozen.representation(x)
    found["round_trip_error"] = bridge.round_trip_error(representation)
    found["nll"] = mean(-svae.factorization.in_batches(bridge.log_prob, representation))


def swaps(found: Any, bridge: Any, data: Any, judge: Any, n_test: int, options: Any) -> None:
    """Whether a swapped concept arrives, and the others stay, by judges of the pictures."""
    import torch

    import svae
    from svae.data.coloured import decoloured, read_colour
    from svae.metrics import proportion

    x, y = data.test.floats(limit=n_test), data.test.y[:n_test]
    hue = data.colour_labels(data.test.factors[:n_test])
    order = torch.randperm(n_test, generator=torch.Generator().manual_seed(options.seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # everybody's partner is somebody else

    def seen(pictures: Any) -> tuple[Any, Any]:
        digit = torch.cat([judge(decoloured(part)).argmax(1) for part in pictures.split(500)])
        return digit, data.colour_labels(read_colour(pictures))

    pairs = {"reconstruction": None, **{f"swap_{part}": part for part in bridge.parts}}
    for name, part in pairs.items():
        pictures = (
            torch.cat([svae.reconstruct(bridge, piece) for piece in x.split(500)])
            if part is None
            else svae.editing.swap_part(bridge, x, x[other], part)
        )
        digit, colour = seen(pictures)
        wanted = (y[other] if part == DIGIT else y, hue[other] if part == COLOUR else hue)
        found[f"{name}_{DIGIT}_read"] = proportion(digit == wanted[0])
        found[f"{name}_{COLOUR}_read"] = proportion(colour == wanted[1])
    found[f"real_{COLOUR}_read"] = proportion(seen(x)[1] == hue)
    error = (read_colour(x) - data.test.factors[:n_test]).abs().mean()
    found["colour_reader_error"] = float(error)


def generation(found: Any, bridge: Any, data: Any, judge: Any, n_test: int, options: Any) -> None:
    """The autoencoder as a generator: standardised normal codes against draws through the flow."""
    import torch

    from svae.data.coloured import decoloured
    from svae.metrics import frechet_distance

    generator = torch.Generator().manual_seed(options.seed)
    real = data.test.floats(limit=n_test)
    codes = torch.cat(
        [bridge.frozen.representation(part) for part in data.train.floats(5000).split(500)]
    )
    normal = torch.randn(n_test, codes.shape[1], generator=generator) * codes.std(0) + codes.mean(
        0
    )
    drawn = {
        "flow": bridge.sample(n=n_test, generator=generator).flatten(0, 1),
        "normal": torch.cat([bridge.frozen.decoder(part) for part in normal.split(500)]),
    }

    def features(pictures: Any) -> Any:
        parts = pictures.split(500)
        return torch.cat([judge.features(decoloured(part)) for part in parts])

    reference = features(real)
    for name, pictures in drawn.items():
        found[f"fid_{name}"] = frechet_distance(reference, features(pictures))


def draw(answering: Any, coding: Any, data: Any, judge: Any, out: Path, options: Any) -> None:
    """Writes the pictures."""
    import torch

    from svae import editing, factorization, plots
    from svae.data.coloured import decoloured

    generator = torch.Generator().manual_seed(0)
    n = 400 if options.quick else 2000
    x, y = data.test.floats(limit=n), data.test.y[:n]
    first = [int((y == k).nonzero()[0]) for k in range(data.n_classes)]
    one_each = x[first]
    pictures: dict[str, Any] = {}
    with torch.no_grad():
        for part in coding.parts:
            pictures[f"transfer_{part}"] = plots.transfer(coding, one_each[:8], part)
        pictures["interpolations"] = plots.interpolations(
            coding, one_each[[3, 5]], one_each[[7, 0]], coding.parts, n=9
        )
        pictures["resampled"] = plots.resampled_parts(
            coding, one_each[[2, 4, 7]], coding.parts, 9, generator
        )
        sampled = coding.sample(n=64, generator=generator).reshape(8, 8, *data.x_shape)
        pictures["generated"] = plots.image_grid(
            sampled, title="An autoencoder as a generator: drawn through the flow"
        )
        responses = {
            part: editing.response(answering, one_each[7:8], part, 1000, generator)
            for part in answering.parts
        }
        pictures["responses"] = plots.responses(responses, data.class_names)
        representation = factorization.in_batches(answering.frozen.representation, x)
        pictures["walk"] = plots.walk(
            answering,
            one_each[7:8],
            answering.to_representation,
            (DIGIT, COLOUR, RESIDUAL),
            representation,
            y,
            data.class_names,
            n_steps=60,
            generator=generator,
        )
        pictures["axes"] = plots.concept_axes(editing.codes(answering, x), y, data.class_names)
        lines = editing.linearisation(coding, one_each[[1, 4]], one_each[[0, 8]], n=9)

        def confidence(images: Any) -> Any:
            logits = judge(decoloured(images.flatten(0, 1)))
            return logits.softmax(-1).amax(-1).unflatten(0, images.shape[:2])

        both = torch.stack([confidence(line) for line in lines])
        real = judge.features(decoloured(x))

        def realism(images: Any) -> Any:
            near = torch.cdist(judge.features(decoloured(images.flatten(0, 1))), real).amin(1)
            return -near.unflatten(0, images.shape[:2])

        distance = torch.stack([realism(line) for line in lines])
        pictures["linearisation"] = plots.linearisation(lines, both, distance)
    for name, figure in pictures.items():
        plots.save(figure, out / f"{name}.png")


def write(metrics: dict[str, Any], out: Path) -> None:
    """Writes ``metrics.json``."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def report(metrics: dict[str, Any], out: Path) -> None:
    """Prints the numbers that matter."""
    say(f"\n{metrics['dataset']}, seed {metrics['seed']}")
    for name, value in metrics.items():
        if isinstance(value, float) and not name.endswith(("_low", "_high")):
            say(f"  {name:<40}{value:9.4f}")
    say(f"{metrics['seconds_total']:.0f} s; everything is in {out}/")


def say(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()

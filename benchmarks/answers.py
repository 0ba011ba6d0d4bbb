"""Are the answers about a model right: names, attributions, pairs, and the page that shows them?

Question: does every known nuisance get its name and noise none; do attributions account for what
they explain, and fall on the class part; do the pictures that turn or keep the model's answer turn
or keep that of an independent judge; how long does the page take?
Expectation: six names of six, completeness within a percent, a tenth at most on the nuisance, and
95 and 98 % of the pairs.
Cost: fifteen minutes a seed for the MNIST model, two minutes for the rest. Finished runs are kept.

    python benchmarks/answers.py                 # writes benchmarks/results/answers.json
"""

import argparse
import colorsys
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, finished_parts, write  # noqa: E402

FACTORS = ("rotation", "position across", "position upright", "brightness", "hue", "saturation")


class Morphed:
    """Digits whose grey picture is the class, and whose nuisance is what they are drawn with.

    Args:
        grey: The digits.
        noise: Whether the nuisance adds fixed patterns of noise instead: nothing with a name.
    """

    def __init__(self, grey: Tensor, noise: bool = False) -> None:
        self.grey, self.noise = grey, noise
        generator = torch.Generator().manual_seed(0)
        self.patterns = torch.randn(len(FACTORS), 3, *grey.shape[2:], generator=generator)

    def encode(self, x: Tensor, sample: bool = False) -> Any:
        """Row numbers as the class, and a nuisance of each row's own."""
        from svae import Latent

        z = torch.randn(len(x), len(FACTORS), generator=torch.Generator().manual_seed(1))
        return Latent(torch.arange(len(x))[:, None].float(), z)

    def decode(self, latent: Any) -> Tensor:
        """The digit of the class, drawn as the nuisance says."""
        from svae.data.morphed import morph

        plain = self.noise * torch.ones(())
        z = latent.z_nuisance * (1 - plain)
        angle, right, down, bright, hue, strength = z.T
        colours = [
            colorsys.hsv_to_rgb((0.1 * float(h)) % 1, float(torch.sigmoid(s)), 1.0)
            for h, s in zip(hue, strength, strict=True)
        ]
        side = self.grey.shape[-1]
        level = (0.6 * (0.2 * bright).exp()).clamp(max=1)
        moved = torch.stack([12 * angle, 0.03 * side * right, 0.03 * side * down, level], 1)
        factors = torch.cat([moved, torch.tensor(colours)], 1)
        pictures = morph(self.grey[latent.z_class[:, 0].long()], factors)
        if self.noise:
            pictures = pictures + 0.1 * torch.einsum(
                "bn,nchw->bchw", latent.z_nuisance, self.patterns
            )
        return pictures.clamp(0, 1)

    def predict(self, x: Tensor) -> Tensor:
        """Some logits; nothing here is asked of them."""
        return x.flatten(1)[:, :10]

    def sample_nuisance(
        self, latent: Any, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Standard normal draws."""
        return torch.randn(n, len(latent.z_class), len(FACTORS), generator=generator)


def names(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Names of dims that are known, and of noise."""
    import svae

    base = svae.data.choose("digits" if options.quick else "mnist", seed=seed)
    grey = base.test.floats(limit=40 if options.quick else 100)
    grey = functional.pad(grey, [grey.shape[-1] // 5] * 4)
    found: dict[str, Any] = {}
    for kind in ("known", "noise"):
        morphed = Morphed(grey, kind == "noise")
        x = morphed.decode(morphed.encode(grey))
        result = svae.nuisances.name_nuisances(
            morphed, x, n_images=8 if options.quick else 48,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        given = [one.name for one in result.directions]
        found[kind] = given
        found[f"{kind}_shares"] = [round(one.share, 4) for one in result.directions]
    found["right"] = sum(a == b for a, b in zip(found["known"], FACTORS, strict=True))
    found["false"] = sum(one not in ("unnamed", "nothing") for one in found["noise"])
    return found


def mnist(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Attributions, pairs and the page of the MNIST experiment's model."""
    import svae
    from experiments.mnist_svae import main as experiment
    from svae.attribution import attribute, latent_shares
    from svae.counterfactuals import class_parts, counterfactual, semi_factual
    from svae.judge import load_judge

    name = "digits" if options.quick else "mnist"
    run = options.runs / "answers" / f"{name}_{seed}"
    if not (run / "model.json").exists():
        given = ["--dataset", name, "--seed", str(seed), "--out", str(run)]
        experiment([*given, "--max-epochs", "1", "--quick"] if options.quick else given)
    vae, data = svae.load(run), svae.data.choose(name, seed=seed)
    judge = load_judge(data)
    generator = torch.Generator().manual_seed(seed)
    n = 20 if options.quick else 500
    x = data.test.floats(limit=n)
    error = attribute(vae.predict, x[:200]).error
    assert error is not None
    shares = latent_shares(vae, judge, x[:200], generator=generator)
    own, seen = vae.predict(x).argmax(1), judge(x).argmax(1)
    kept = semi_factual(vae, x, generator=generator)
    parts = class_parts(vae, data.train.floats(limit=3000))
    turned = counterfactual(vae, x, parts)
    with torch.no_grad():
        still, other = judge(kept.x).argmax(1), judge(turned.x).argmax(1)
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        size = svae.report(vae, data, folder, judge=judge).stat().st_size
    return {
        "completeness_error": float(error.mean()),
        "completeness_error_largest": float(error.max()),
        "share_on_nuisance": shares["nuisance"].value,
        "semi_factuals": float(((kept.answer == own) & (still == seen)).float().mean()),
        "semi_factuals_distance": float(kept.distance.mean()),
        "counterfactuals": float(
            (turned.found & (turned.answer != own) & (other == turned.answer)).float().mean()
        ),
        "counterfactuals_distance": float(turned.distance.mean()),
        "report_seconds": round(time.perf_counter() - started, 1),
        "report_bytes": size,
    }


def stability(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What three explanations of LeNet's logits, autoencoder and flow of other seeds, agree on."""
    from benchmarks.concepts import loaded
    from benchmarks.invariances import LOGITS, lenet_bridge
    from svae.stability import recurrences

    data = loaded("mnist", 0, 200 if options.quick else 10_000)
    fits = [lenet_bridge(LOGITS["lenet"], data, seed + k, options) for k in range(3)]
    n = 20 if options.quick else 300
    found = recurrences(fits, data.test.floats(limit=n), n_images=4 if options.quick else 12)
    return [
        {"name": one.name, "values": one.values, "ignored_in": one.ignored_in,
         "named_in": one.named_in, "stable": one.stable}
        for one in found
    ]  # fmt: skip


def stability_table(rows: list[dict[str, Any]]) -> str:
    """A row for each measure."""
    lines = [
        "| measure | share that is left open, by fit | fits that ignore it | fits with a dim of "
        "that name |",
        "|---|---|---|---|",
    ]
    for row in rows:
        shares = ", ".join(f"{value:.2f}" for value in row["values"])
        n = len(row["values"])
        lines.append(
            f"| {row['name']} | {shares} | {row['ignored_in']} of {n} | {row['named_in']} of {n} |"
        )
    return "\n".join(lines) + "\n"


def augment(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What training on resampled pictures gains, with that model's nuisance."""
    from experiments.augment import main as experiment

    name = "digits" if options.quick else "mnist"
    run = options.runs / "answers" / f"{name}_{seed}"
    given = ["--dataset", name, "--seed", str(seed), "--run", str(run), "--seeds", "3"]
    given += ["--out", str(options.runs / "answers" / f"augment_{seed}")]
    return experiment([*given, "--quick", "--labels", "100"] if options.quick else given)


def gained(one: dict[str, Any]) -> float:
    """Mean gain in accuracy over the test sets that are changed in one thing."""
    changed = ("slant", "thickness", "rotation", "size", "position", "blur", "noise")
    return sum(one[f"gain.resampled.{name}"] for name in changed) / len(changed)


def augment_table(one: dict[str, Any]) -> str:
    """The table of the experiment."""
    from experiments.augment import table

    names = [name.removeprefix("plain.") for name in one if name.startswith("plain.")]
    return table(one, names)


CLAIMS: tuple[tuple[str, str, str, str, Callable[[dict[str, Any]], float]], ...] = (
    ("names", "dims of morphed digits, of six, that get the name of their factor", ">= 6",
     "names", lambda one: one["right"]),
    ("names.noise", "dims of noise, of six, that get a name", "<= 0",
     "names", lambda one: one["false"]),
    ("completeness", "completeness error of integrated gradients, share of the rise, MNIST",
     "<= 0.01", "mnist", lambda one: one["completeness_error"]),
    ("attribution", "share of a judge's log-probability attributed to the nuisance, MNIST",
     "<= 0.1", "mnist", lambda one: one["share_on_nuisance"]),
    ("counterfactuals", "counterfactuals that turn the answers of model and judge, MNIST",
     ">= 0.95", "mnist", lambda one: one["counterfactuals"]),
    ("semifactuals", "semi-factuals that keep the answers of model and judge, MNIST",
     ">= 0.98", "mnist", lambda one: one["semi_factuals"]),
    ("report.seconds", "seconds of the report of the MNIST run, with its audit", "<= 90",
     "mnist", lambda one: one["report_seconds"]),
    ("augment", "mean gain in accuracy over seven changed test sets, classifiers of 500 labels "
     "that are trained on resampled pictures", ">= 0", "augment", gained),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims and every run."""
    parser = argparse.ArgumentParser(description="Names, attributions, pairs and the report.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parts: dict[str, Callable[[int, argparse.Namespace], Any]] = {
        "names": names,
        "mnist": mnist,
        "augment": augment,
        "stability": stability,
    }
    parser.add_argument("--parts", nargs="*", choices=[*parts], default=[*parts])
    parser.add_argument("--have", action="store_true", help="write what is finished, run nothing")
    parser.add_argument("--quick", action="store_true", help="small settings, for tests")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "answers.json")
    tables = ROOT / "docs" / "_tables"
    parser.add_argument("--table", type=Path, default=tables / "augment.md")
    options = parser.parse_args(arguments)
    # Stability is of three seeds already.
    seeds = {part: options.seeds[: 1 if part == "stability" else None] for part in options.parts}
    folder = options.runs / "answers" / ("quick" if options.quick else "whole")
    found = finished_parts(
        lambda part, seed: parts[part](seed, options), seeds, folder, options.have
    )
    claims = [
        claim(f"audit.{name}", text, target, [float(of(one)) for one in found.get(part, [])])
        for name, text, target, part, of in CLAIMS
    ]
    write(command("answers", arguments), claims, options.out, **found)
    if found.get("augment"):
        options.table.write_text(augment_table(found["augment"][0]), encoding="utf-8")
    if found.get("stability"):
        beside = options.table.with_name("stability.md")
        beside.write_text(stability_table(found["stability"][0]), encoding="utf-8")
    for one in claims:
        print(f"{one['id']:<24}{one['measured']}  {one['target']}")


if __name__ == "__main__":
    main()

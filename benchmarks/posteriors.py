"""How much of the gap between ELBO and evidence does each guide leave?

Question: which guide is worth its time, on real images and where the posterior is known?
Expectation: on a linear-Gaussian model a joint covariance closes the gap; on MNIST correlation
between the style dims is most of what independent Gaussians miss.
Cost: fifteen minutes a seed on two cores. Finished runs are kept.

    python benchmarks/posteriors.py                 # writes benchmarks/results/posteriors.json

On MNIST, a model is trained with the mean-field guide, then frozen, and every guide is fitted to
it afresh, equally long, so that the posteriors differ and nothing else. The linear-Gaussian model
is never trained. A model that was trained with independent Gaussians has become one that they
suit; so the mean-field guide and the flow are also measured each with a model of its own, both
trained together. The gap is the importance-weighted bound with 512 samples minus the ELBO, in nats
per example, on test examples.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, finished, write  # noqa: E402
from experiments.custom_guide import fit, gap, trained  # noqa: E402

N_IMPORTANCE = 512
TOGETHER = ("mean-field", "flow")
Build = Callable[[nn.Module, Any], nn.Module]


def guides() -> dict[str, Build]:
    """Every guide of the package, by the name of its row."""
    from svae import guides as g

    return {
        "mean-field": g.MeanFieldGuide,
        "full covariance": g.FullCovarianceGuide,
        "joint covariance": lambda e, s: g.FullCovarianceGuide(e, s, joint=True),
        "structured": lambda e, s: g.StructuredGuide(e, s, hidden=(256,)),
        "hierarchical": lambda e, s: g.HierarchicalGuide(e, s, hidden=(256,)),
        "flow": lambda e, s: g.FlowGuide(
            e, s, ("z_class", "style"), structured=True, n_context=128
        ),
    }


class LinearGaussian(nn.Module):
    r"""Four class dims, eight style dims, twenty outputs: :math:`x = W z + 0.3\,\epsilon`.

    The dims of z explain the same outputs, so they are strongly correlated given x.
    """

    def __init__(self, split: Any, n_x: int = 20, scale: float = 0.3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        loading = torch.randn(n_x, split.n_features, generator=generator)
        # Half of every column is the same, which makes the columns alike.
        self.loading = nn.Parameter(0.6 * (loading + loading[:, :1]), requires_grad=False)
        self.split, self.scale = split, scale

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            z = []
            for name, n in (("z_class", self.split.n_class), ("style", self.split.n_nuisance)):
                zero = self.loading.new_zeros(len(x), n)
                z.append(pyro.sample(name, dist.Normal(zero, 1.0).to_event(1)))
            pyro.sample("y", dist.Categorical(self.loading.new_ones(len(x), 2)), obs=y)
            loc = torch.cat(z, -1) @ self.loading.T
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)

    def data(self, n: int, seed: int) -> Any:
        """Examples of the model, in three sets."""
        from svae.data import ArrayData, ArraySet

        generator = torch.Generator().manual_seed(seed)
        n_x, n_z = self.loading.shape
        z = torch.randn(n, n_z, generator=generator)
        x = z @ self.loading.T + self.scale * torch.randn(n, n_x, generator=generator)
        whole = ArraySet(x, torch.arange(n) % 2)
        rows = torch.arange(n)
        parts = [whole.subset(part) for part in rows.split([n - 2000, 1000, 1000])]
        return ArrayData(*parts, class_names=("0", "1"), name="linear", bounded=False)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Log p(x), in nats."""
        cov = self.loading @ self.loading.T + self.scale**2 * torch.eye(len(self.loading))
        return dist.MultivariateNormal(x.new_zeros(x.shape[-1]), cov).log_prob(x)


def linear(build: Build, seed: int, epochs: int, n: int) -> dict[str, float]:
    """One guide on the linear-Gaussian model."""
    import svae
    from svae.nets import MLPEncoder

    split = svae.LatentSplit(4, 8)
    model = LinearGaussian(split)
    data = model.data(2000 + 128 * 200 if epochs > 1 else 4000, seed)
    torch.manual_seed(seed)
    guide = build(MLPEncoder(data.x_shape, 128, hidden=()), split)
    vae = refit(model, guide, data, epochs, seed)
    x = data.test.floats(limit=n)
    found = gap(vae, x, N_IMPORTANCE)
    exact = float(model.log_evidence(x).mean())
    return {
        "gap": found["gap"].value,
        "elbo": found["elbo"].value,
        "log_evidence": exact,
        "exact_gap": exact - found["elbo"].value,
    }


def refit(model: nn.Module, guide: nn.Module, data: Any, epochs: int, seed: int) -> Any:
    """The model, frozen, with a guide that is fitted to it."""
    import svae

    frozen = copy.deepcopy(model).requires_grad_(False)
    vae = svae.SVAE(frozen, guide, data.x_shape)
    fit(vae, data, epochs, seed)
    return vae


def images(model: nn.Module, build: Build, data: Any, seed: int, epochs: int, n: int) -> Any:
    """One guide on a frozen model of images."""
    import svae
    from svae.nets import MLPEncoder

    torch.manual_seed(seed)
    guide = build(MLPEncoder(data.x_shape), svae.LatentSplit(8, 16))
    start = time.perf_counter()
    vae = refit(model, guide, data, epochs, seed)
    seconds = time.perf_counter() - start
    found = gap(vae, data.test.floats(limit=n), N_IMPORTANCE)
    numbers = {name: value.value for name, value in found.items()}
    return numbers | {"seconds": round(seconds, 1)}


def runs(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All guides of one seed, from the file of finished ones where they are in it."""
    import svae

    path = options.runs / "posteriors" / f"seed_{seed}_epochs_{options.epochs}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    model, data = None, None
    for name, build in guides().items():
        if name in found:
            continue
        if model is None:
            data = svae.data.choose(options.dataset, seed=seed)
            data.draw_binary()
            model = trained(data, guides()["mean-field"], options.epochs, seed).model
        found[name] = {
            "linear": linear(build, seed, options.epochs, options.examples),
            "images": images(model, build, data, seed, options.epochs, options.examples),
        }
        print(f"seed {seed}, {name}: {found[name]}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def together(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Two guides of one seed, each with its own model, from the file where it is there."""
    import svae

    def measure() -> dict[str, Any]:
        data = svae.data.choose(options.dataset, seed=seed)
        data.draw_binary()
        found = {}
        for name in TOGETHER:
            vae = trained(data, guides()[name], options.epochs, seed)
            numbers = gap(vae, data.test.floats(limit=options.examples), N_IMPORTANCE)
            found[name] = {key: value.value for key, value in numbers.items()}
        return found

    path = options.runs / "posteriors" / f"together_{seed}_epochs_{options.epochs}.json"
    return finished(path, measure)


def table(rows: dict[str, list[dict[str, Any]]], pairs: list[dict[str, Any]]) -> str:
    """A row for each guide: means over seeds."""

    def mean(name: str, part: str, key: str) -> float:
        return statistics.fmean(found[part][key] for found in rows[name])

    def own(name: str) -> str:
        if name not in TOGETHER:
            return ""
        numbers = [statistics.fmean(p[name][key] for p in pairs) for key in ("gap", "elbo")]
        return f" {numbers[0]:.2f}, {numbers[1]:.2f}"

    lines = [
        "| guide | gap, linear-Gaussian | gap, MNIST | ELBO, MNIST | time to fit "
        "| gap and ELBO, with a model of its own |",
        "|---|---|---|---|---|---|",
    ]
    for name in rows:
        slower = mean(name, "images", "seconds") / mean("mean-field", "images", "seconds")
        lines.append(
            f"| {name} | {mean(name, 'linear', 'gap'):.3f} | {mean(name, 'images', 'gap'):.2f} "
            f"| {mean(name, 'images', 'elbo'):.2f} | {slower:.1f} x |{own(name)} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims and the table of the documentation."""
    parser = argparse.ArgumentParser(description="Gaps of all guides.")
    parser.add_argument("--dataset", default="mnist", choices=["mnist", "digits"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "posteriors.json")
    tables = ROOT / "docs" / "_tables"
    parser.add_argument("--table", type=Path, default=tables / "guides.md")
    options = parser.parse_args(arguments)
    by_seed = [runs(options, seed) for seed in options.seeds]
    rows = {name: [found[name] for found in by_seed] for name in guides()}
    claims = []
    for part, target in (("images", "<= 0.8"), ("linear", "<= 0.1")):
        ratios = {
            name: [
                found[part]["gap"] / plain[part]["gap"]
                for found, plain in zip(rows[name], rows["mean-field"], strict=True)
            ]
            for name in rows
        }
        best = min(ratios, key=lambda name: statistics.fmean(ratios[name]))
        what = {"images": "a frozen model of MNIST", "linear": "a linear-Gaussian model"}[part]
        text = f"IWAE(512) - ELBO gap on {what}, best guide ({best}) over mean-field"
        name = {"images": "frozen", "linear": "linear"}[part]
        claims.append(claim(f"guides.gap.{name}", text, target, ratios[best]))
    pairs = [together(options, seed) for seed in options.seeds]
    text = "IWAE(512) - ELBO gap on MNIST, flow over mean-field, each trained with its model"
    values = [pair["flow"]["gap"] / pair["mean-field"]["gap"] for pair in pairs]
    claims.append(claim("guides.gap.images", text, "<= 0.8", values))
    write(command("posteriors", arguments), claims, options.out, rows=rows, together=pairs)
    options.table.write_text(table(rows, pairs), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Does a guide of my own have a smaller gap than the default one?

Question: how many nats per image does a posterior of one's own win over independent Gaussians?
Expectation: with one covariance over class latent and style the bound is higher, and the gap
between it and the evidence smaller: what the dims know of each other is no longer lost.
Cost: half a minute on the digits, three minutes on MNIST, on two cores.

    python experiments/custom_guide.py                     # MNIST where it can be had
    python experiments/custom_guide.py --dataset digits

Both guides are trained alike, each with a model of its own, on pixels drawn as 0 or 1, so that the
Bernoulli likelihood is one. The gap is the importance-weighted bound with 512 samples minus the
ELBO, both in nats on log p(x), on test images.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


class JointGaussian(nn.Module):
    """q(z_class) q(style | z_class) of one Gaussian with a full covariance, in plain Pyro."""

    def __init__(self, encoder: nn.Module, n_class: int, n_style: int) -> None:
        super().__init__()
        self.encoder, self.n_class, self.n = encoder, n_class, n_class + n_style
        self.loc = nn.Linear(encoder.n_features, self.n)  # pyright: ignore
        self.triangle = nn.Linear(encoder.n_features, self.n**2)  # pyright: ignore
        nn.init.zeros_(self.triangle.weight)  # starts as independent Gaussians

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        h, k = self.encoder(x), self.n_class
        with pyro.plate("batch", len(x)):
            loc, square = self.loc(h), self.triangle(h).unflatten(-1, (self.n, self.n))
            scale = functional.softplus(square.diagonal(dim1=-2, dim2=-1)) + 1e-3
            lower = square.tril(-1) + scale.diag_embed()
            first, cross, second = lower[:, :k, :k], lower[:, k:, :k], lower[:, k:, k:]
            z_class = pyro.sample("z_class", dist.MultivariateNormal(loc[:, :k], scale_tril=first))
            noise = torch.linalg.solve_triangular(
                first, (z_class - loc[:, :k]).unsqueeze(-1), upper=False
            )
            style_loc = loc[:, k:] + (cross @ noise).squeeze(-1)
            pyro.sample("style", dist.MultivariateNormal(style_loc, scale_tril=second))


def parser() -> argparse.ArgumentParser:
    """Options of the script."""
    options = argparse.ArgumentParser(description="A guide of one's own beside the default.")
    options.add_argument(
        "--data-root", help="folder of the data; $SVAE_DATA or data/ if not given"
    )
    options.add_argument("--dataset", default="auto", choices=["auto", "mnist", "digits"])
    options.add_argument("--out", default="runs/custom_guide")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-epochs", type=int, help="of each of the three trainings")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few samples, for tests")
    return options


def fit(vae: Any, data: Any, epochs: int, seed: int, device: str = "auto") -> None:
    """Every weight 1: the negative ELBO and a label term, nothing that trades one for another."""
    import svae
    from svae.training import Recipe

    svae.fit(
        vae,
        data,
        objective=svae.SupervisedELBO(beta_class=1.0, beta_style=1.0, label_weight=1.0),
        recipe=Recipe(flow_share=0.0),
        seed=seed,
        max_epochs=epochs,
        accelerator=device,
        devices=1,
        enable_progress_bar=False,
    )
    vae.cpu().eval()


def trained(data: Any, build: Any, epochs: int, seed: int, device: str = "auto") -> Any:
    """A model of the data and a guide, trained together; perceptrons, for time's sake."""
    import svae
    from svae.likelihoods import Bernoulli
    from svae.nets import MLPDecoder, MLPEncoder
    from svae.priors import StandardPrior

    split = svae.LatentSplit(8, 16)
    torch.manual_seed(seed)
    model = svae.SupervisedModel(
        svae.GaussianHead(split.n_class, data.n_classes),
        StandardPrior(split.n_nuisance),
        MLPDecoder(data.x_shape, split.n_features),
        Bernoulli(binary=data.binarise),
    )
    vae = svae.SVAE(model, build(MLPEncoder(data.x_shape), split), data.x_shape)
    fit(vae, data, epochs, seed, device)
    return vae


def evidence(vae: Any, x: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """ELBO, and the bound with ``n`` samples, of every image."""
    import svae

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bounds = [svae.evidence(vae, part, n) for part in x.split(20)]
    elbo, iwae = (torch.cat(values) for values in zip(*bounds, strict=True))
    return elbo, iwae


def estimates(bounds: tuple[Tensor, Tensor], n: int) -> dict[str, Any]:
    """Means of ELBO, of the bound with ``n`` samples and of their difference, with intervals."""
    from svae.metrics import mean

    elbo, iwae = bounds
    return {"elbo": mean(elbo), f"iwae_{n}": mean(iwae), "gap": mean(iwae - elbo)}


def gap(vae: Any, x: Tensor, n: int, seed: int = 0) -> dict[str, Any]:
    """ELBO, bound with ``n`` samples and their difference, as estimates with intervals."""
    return estimates(evidence(vae, x, n, seed), n)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, measures, prints; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()

    import svae
    from svae.auditing import Audit
    from svae.factorization import in_batches
    from svae.saving import writable

    out = writable(options.out)
    data = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    data.draw_binary()
    epochs = options.max_epochs or {"digits": 60, "mnist": 6}[data.name]
    n, n_images = (16, 40) if options.quick else (512, 400)
    x = data.test.floats(limit=n_images)
    result = Audit()
    gaps = {}
    guides = {
        "default": svae.MeanFieldGuide,
        "custom": lambda encoder, split: JointGaussian(encoder, split.n_class, split.n_nuisance),
    }
    for name, build in guides.items():
        vae = trained(data, build, epochs, options.seed, options.device)
        bounds = evidence(vae, x, n)
        found = estimates(bounds, n)
        gaps[name] = bounds[1] - bounds[0]
        result.numbers |= {f"{name}_{key}": value for key, value in found.items()}
        print(f"  {name}: gap {found['gap'].value:.2f} nats, ELBO {found['elbo'].value:.1f}")
        if name == "custom":
            vae.save(out)
            predicted = in_batches(vae.predict, data.test.floats())
            result.numbers["test_accuracy"] = svae.metrics.accuracy(predicted, data.test.y)
    # Image by image, where most of the spread is the images' own.
    result.numbers["gap_saved"] = svae.metrics.mean(gaps["default"] - gaps["custom"])
    metrics = result.flat()
    metrics["gap_ratio"] = metrics["custom_gap"] / metrics["default_gap"]
    metrics |= {
        "dataset": data.name,
        "likelihood": type(vae.model.likelihood).__name__,
        "likelihood_is_density": int(vae.model.likelihood.density),
        "seed": options.seed,
        "max_epochs": epochs,
        "seconds_total": round(time.perf_counter() - started, 1),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(
        f"the guide of one's own leaves {metrics['gap_ratio']:.2f} of the default's gap, "
        f"{metrics['gap_saved']:.2f} nats an image less "
        f"({metrics['gap_saved_low']:.2f} to {metrics['gap_saved_high']:.2f}); "
        f"{metrics['seconds_total']:.0f} s; numbers are in {out}/metrics.json"
    )
    return metrics


if __name__ == "__main__":
    main()

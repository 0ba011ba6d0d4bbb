"""Does a guide of my own have a smaller gap than the default one?

Question: how many nats per image does a posterior of one's own win, on the same model?
Expectation: a style code that is correlated, and given the class latent, closes part of the gap
that independent Gaussians leave.
Cost: half a minute on the digits, about fifteen minutes on MNIST, on two cores.

    python experiments/custom_guide.py                     # MNIST where it can be had
    python experiments/custom_guide.py --dataset digits

First a model is trained with the default guide. Then the model is frozen, and both guides are
fitted to it afresh, equally long: so what differs is the posterior, and nothing else. The gap is
the importance-weighted bound with 512 samples minus the ELBO, both in nats on log p(x).
"""

import argparse
import copy
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


class CorrelatedStyle(nn.Module):
    """q(z_class | x) q(style | x, z_class), the second with a full covariance: plain Pyro."""

    def __init__(self, encoder: nn.Module, n_class: int, n_style: int) -> None:
        super().__init__()
        self.encoder, self.n_style = encoder, n_style
        self.z_class = nn.Linear(encoder.n_features, 2 * n_class)  # pyright: ignore
        self.features = nn.Linear(encoder.n_features + n_class, 256)  # pyright: ignore
        self.loc, self.triangle = nn.Linear(256, n_style), nn.Linear(256, n_style**2)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        h = self.encoder(x)
        with pyro.plate("batch", len(x)):
            loc, raw = self.z_class(h).chunk(2, -1)
            scale = functional.softplus(raw) + 1e-3
            z_class = pyro.sample("z_class", dist.Normal(loc, scale).to_event(1))
            g = functional.silu(self.features(torch.cat([h, z_class], -1)))
            square = self.triangle(g).unflatten(-1, (self.n_style, self.n_style))
            diagonal = functional.softplus(square.diagonal(dim1=-2, dim2=-1)) + 1e-3
            lower = square.tril(-1) + diagonal.diag_embed()
            pyro.sample("style", dist.MultivariateNormal(self.loc(g), scale_tril=lower))


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
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=1,
        enable_progress_bar=False,
    )
    vae.cpu().eval()


def refit(model: nn.Module, guide: nn.Module, data: Any, epochs: int, seed: int) -> Any:
    """The model, frozen, with a guide that is fitted to it."""
    import svae

    frozen = copy.deepcopy(model).requires_grad_(False)
    vae = svae.SVAE(frozen, guide, data.x_shape)
    fit(vae, data, epochs, seed)
    return vae


def gap(vae: Any, x: Tensor, n: int, seed: int = 0) -> dict[str, Any]:
    """ELBO, bound with ``n`` samples and their difference, as estimates with intervals."""
    import svae

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bounds = [svae.evidence(vae, part, n) for part in x.split(20)]
    elbo, iwae = (torch.cat(values) for values in zip(*bounds, strict=True))
    return {
        "elbo": svae.metrics.mean(elbo),
        f"iwae_{n}": svae.metrics.mean(iwae),
        "gap": svae.metrics.mean(iwae - elbo),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, measures, prints; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()

    import pytorch_lightning as pl

    import svae
    from svae.auditing import Audit
    from svae.factorization import in_batches
    from svae.likelihoods import Gaussian
    from svae.nets import ConvEncoder
    from svae.priors import StandardPrior
    from svae.saving import writable

    out = writable(options.out)
    data = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    epochs = options.max_epochs or {"digits": 60, "mnist": 6}[data.name]
    split = svae.LatentSplit(8, 16)
    pl.seed_everything(options.seed, workers=True, verbose=False)
    first = svae.SVAE.for_images(
        data.x_shape,
        data.n_classes,
        split,
        style_prior=StandardPrior(split.n_nuisance),
        likelihood=Gaussian(),  # a density with a learned scale, so the nats mean something
        width=16,
    )
    fit(first, data, epochs, options.seed, options.device)
    print(f"{data.name}: model trained with the default guide", flush=True)

    n, n_images = (16, 40) if options.quick else (512, 400)
    x = data.test.floats(limit=n_images)
    result = Audit()
    guides = {
        "default": svae.MeanFieldGuide(ConvEncoder(data.x_shape, width=16), split),
        "custom": CorrelatedStyle(
            ConvEncoder(data.x_shape, width=16), split.n_class, split.n_nuisance
        ),
    }
    for name, guide in guides.items():
        vae = refit(first.model, guide, data, epochs, options.seed)
        found = gap(vae, x, n)
        result.numbers |= {f"{name}_{key}": value for key, value in found.items()}
        print(f"  {name}: gap {found['gap'].value:.2f} nats, ELBO {found['elbo'].value:.1f}")
        if name == "custom":
            vae.save(out)
            predicted = in_batches(vae.predict, data.test.floats())
            result.numbers["test_accuracy"] = svae.metrics.accuracy(predicted, data.test.y)
    metrics = result.flat()
    metrics["gap_ratio"] = metrics["custom_gap"] / metrics["default_gap"]
    metrics |= {
        "dataset": data.name,
        "likelihood": type(first.model.likelihood).__name__,
        "likelihood_is_density": int(first.model.likelihood.density),
        "seed": options.seed,
        "max_epochs": epochs,
        "seconds_total": round(time.perf_counter() - started, 1),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(
        f"the guide of one's own leaves {metrics['gap_ratio']:.2f} of the default's gap; "
        f"{metrics['seconds_total']:.0f} s; numbers are in {out}/metrics.json"
    )
    return metrics


if __name__ == "__main__":
    main()

"""One small case of every part of the package, and models built from them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from svae import consistency, guides, heads, independence, likelihoods, priors
from svae.compilation import Values
from svae.elbo import SupervisedELBO
from svae.flows import ConditionalFlow
from svae.latent import LatentSplit
from svae.models import SVAE, SupervisedModel
from svae.nets import MLPDecoder, MLPEncoder
from svae.saving import Described

SPLIT, K, N_X = LatentSplit(3, 4), 5, 6


class Parts(nn.Module):
    """What a loss reads, as training holds it."""

    def __init__(self, vae: SVAE, objective: SupervisedELBO | None = None) -> None:
        super().__init__()
        self.vae, self.objective = vae, objective or SupervisedELBO()
        self.view = (vae,)  # what the loss is taken of, weights shared

    def loss(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Values]:
        names = self.objective.weights()
        named = None if weights is None else dict(zip(names, weights.unbind(), strict=True))
        return self.objective(self.view[0], x, y, named)


def flow_prior(**settings: Any) -> priors.FlowPrior:
    return priors.FlowPrior(ConditionalFlow(SPLIT.n_nuisance, K, 2, (8,), **settings))


def built(
    head: heads.Head | None = None,
    prior: priors.StylePrior | None = None,
    likelihood: likelihoods.Likelihood | None = None,
    guide: nn.Module | None = None,
    penalty: independence.Penalty | None = None,
    **settings: Any,
) -> Parts:
    model = SupervisedModel(
        head or heads.GaussianHead(SPLIT.n_class, K),
        prior or priors.StandardPrior(SPLIT.n_nuisance),
        MLPDecoder((N_X,), SPLIT.n_features, hidden=(8,)),
        likelihood or likelihoods.Bernoulli(),
    )
    guide = guide or guides.MeanFieldGuide(MLPEncoder((N_X,), 8, hidden=(8,)), SPLIT)
    penalties = [] if penalty is None else [penalty]
    return Parts(SVAE(model, guide, (N_X,)), SupervisedELBO(penalties=penalties, **settings))


def encoder() -> MLPEncoder:
    return MLPEncoder((N_X,), 8, hidden=(8,))


# One case for every part of the package; a part without one fails a test of its own.
HEADS: dict[type, Callable[[], Any]] = {
    heads.GaussianHead: lambda: heads.GaussianHead(SPLIT.n_class, K),
    heads.NetworkHead: lambda: heads.NetworkHead(SPLIT.n_class, K, hidden=(8,)),
}
PRIORS: dict[type, Callable[[], Any]] = {
    priors.StandardPrior: lambda: priors.StandardPrior(SPLIT.n_nuisance),
    priors.FlowPrior: flow_prior,
    priors.MixturePrior: lambda: priors.MixturePrior(SPLIT.n_nuisance, 3),
    priors.VampPrior: lambda: priors.VampPrior(SPLIT.n_nuisance, (N_X,), 3),
}
LIKELIHOODS: dict[type, Callable[[], Any]] = {
    likelihoods.Bernoulli: likelihoods.Bernoulli,
    likelihoods.ContinuousBernoulli: likelihoods.ContinuousBernoulli,
    likelihoods.Gaussian: likelihoods.Gaussian,
    likelihoods.Laplace: likelihoods.Laplace,
    likelihoods.DiscretisedLogistic: likelihoods.DiscretisedLogistic,
    likelihoods.Columns: lambda: likelihoods.Columns(2, (4,)),
}
GUIDES: dict[type, Callable[[], Any]] = {
    guides.MeanFieldGuide: lambda: guides.MeanFieldGuide(encoder(), SPLIT),
    guides.FullCovarianceGuide: lambda: guides.FullCovarianceGuide(encoder(), SPLIT),
    guides.StructuredGuide: lambda: guides.StructuredGuide(encoder(), SPLIT, (8,)),
    guides.HierarchicalGuide: lambda: guides.HierarchicalGuide(encoder(), SPLIT, 3, (8,)),
    guides.FlowGuide: lambda: guides.FlowGuide(
        encoder(), SPLIT, ("z_class", "style"), n_context=4, n_blocks=2, hidden=(8,)
    ),
}
PENALTIES: dict[type, Callable[[], Any]] = {
    independence.AdversarialProbe: lambda: independence.AdversarialProbe(SPLIT.n_nuisance, K),
    independence.ClassConditionalMMD: independence.ClassConditionalMMD,
    independence.HSIC: independence.HSIC,
    independence.SwapCycle: independence.SwapCycle,
    consistency.Consistency: lambda: consistency.Consistency(lambda x: 0.9 * x, threshold=0.3),
    independence.TotalCorrelation: lambda: independence.TotalCorrelation(SPLIT.n_features),
}
FAMILIES = {
    "head": (HEADS, (heads,), heads.Head),
    "prior": (PRIORS, (priors,), priors.StylePrior),
    "likelihood": (LIKELIHOODS, (likelihoods,), likelihoods.Likelihood),
    "guide": (GUIDES, (guides,), Described),
    "penalty": (PENALTIES, (independence, consistency), independence.Penalty),
}


def batch(n: int = 15, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.rand(n, N_X, generator=generator).to(dtype), torch.arange(n) % K


def singles() -> Iterator[Any]:
    """Every part once, beside the usual others."""
    for name, (cases, _, _) in FAMILIES.items():
        for kind, case in cases.items():
            yield pytest.param({name: case}, id=kind.__name__)


def rows() -> Iterator[Any]:
    """Few choices that hold every part at least once: the i-th of each family, in turn."""
    families = {name: list(cases.items()) for name, (cases, _, _) in FAMILIES.items()}
    for i in range(max(map(len, families.values()))):
        chosen = {name: cases[i % len(cases)] for name, cases in families.items()}
        name = "-".join(kind.__name__ for kind, _ in chosen.values())
        yield pytest.param({family: case for family, (_, case) in chosen.items()}, id=name)

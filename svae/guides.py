"""q(z given x): amortised guides.

A guide is any callable of signature ``(x, y=None)`` that makes the sites ``z_class`` and ``style``
inside a plate over the batch. The classes here are ready-made ones.
"""

import pyro
import pyro.distributions as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from svae.latent import LatentSplit
from svae.nets import full_precision
from svae.saving import Described

__all__ = ["MeanFieldGuide"]


class MeanFieldGuide(Described, nn.Module):
    r"""Independent Gaussians for both blocks, from one encoder.

    .. math:: q(z_\mathrm{class}, u \mid x) =
        \mathcal{N}(m_c(x), \mathrm{diag}\, s_c^2(x))\,
        \mathcal{N}(m_u(x), \mathrm{diag}\, s_u^2(x))

    Use it first: it is the fastest, and its posterior means need no sampling. It cannot express
    correlation between latent dims.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        encoder: Maps x to features, with an attribute ``n_features``.
        split: Numbers of class and nuisance dims.
        min_scale: Lower bound of every posterior standard deviation, against collapse to a point.
    """

    def __init__(self, encoder: nn.Module, split: LatentSplit, min_scale: float = 1e-3) -> None:
        super().__init__()
        self.encoder, self.split, self.min_scale = encoder, split, min_scale
        n_features = encoder.n_features
        if not isinstance(n_features, int):
            raise TypeError(
                "the encoder needs an integer attribute n_features, its output's width, got "
                f"{type(n_features).__name__}"
            )
        self.parameters_of = nn.Linear(n_features, 2 * split.n_features)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        y: Int[Tensor, " batch"] | None = None,
    ) -> None:
        loc, raw_scale = full_precision(self.parameters_of(self.encoder(x))).chunk(2, -1)
        scale = functional.softplus(raw_scale) + self.min_scale
        loc, scale = self.split.split(loc), self.split.split(scale)
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(loc.z_class, scale.z_class).to_event(1))
            pyro.sample("style", dist.Normal(loc.z_nuisance, scale.z_nuisance).to_event(1))

"""Independent Gaussians for all latent dims."""

import pyro
import pyro.distributions as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from svae.guides.features import loc_scale, width
from svae.latent import LatentSplit
from svae.saving import Described

__all__ = ["MeanFieldGuide"]


class MeanFieldGuide(Described, nn.Module):
    r"""Independent Gaussians for both blocks.

    .. math:: q(z_\mathrm{class}, u \mid x) =
        \mathcal{N}(m_c(x), \mathrm{diag}\, s_c^2(x))\,
        \mathcal{N}(m_u(x), \mathrm{diag}\, s_u^2(x))

    Use it first: it is the fastest, and its posterior means need no sampling. It cannot express
    correlation between latent dims.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114;
        two trunks as in DIVA: Domain Invariant Variational Autoencoders (Ilse et al., 2020),
        https://arxiv.org/abs/1905.10427

    Args:
        encoder: Maps x to features, with an attribute ``n_features``.
        split: Numbers of class and nuisance dims.
        min_scale: Lower bound of every posterior standard deviation, against collapse to a point.
        style_encoder: A trunk of its own for the style code; ``encoder`` serves both if None.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: LatentSplit,
        min_scale: float = 1e-3,
        style_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.split, self.min_scale = encoder, split, min_scale
        self.style_encoder = style_encoder
        shared = style_encoder is None
        n_out = split.n_features if shared else split.n_class
        self.parameters_of = nn.Linear(width(encoder), 2 * n_out)
        if style_encoder is not None:
            self.style_parameters_of = nn.Linear(width(style_encoder), 2 * split.n_nuisance)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        y: Shaped[Tensor, "batch *classes"] | None = None,
    ) -> None:
        loc, scale = loc_scale(self.parameters_of(self.encoder(x)), self.min_scale)
        if self.style_encoder is None:
            (loc, style_loc), (scale, style_scale) = self.split.split(loc), self.split.split(scale)
        else:
            numbers = self.style_parameters_of(self.style_encoder(x))
            style_loc, style_scale = loc_scale(numbers, self.min_scale)
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(loc, scale).to_event(1))
            pyro.sample("style", dist.Normal(style_loc, style_scale).to_event(1))

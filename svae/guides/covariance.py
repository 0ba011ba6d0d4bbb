"""One Gaussian with a full covariance matrix for each block."""

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import register_kl

from svae.guides.features import Trunks, positive
from svae.latent import LatentSplit
from svae.nets import full_precision
from svae.saving import Described

__all__ = ["FullCovarianceGuide"]


class FullCovarianceGuide(Described, nn.Module):
    r"""A Gaussian with a full covariance for each block, or for both together.

    .. math:: q(z_\mathrm{class}, u \mid x) =
        \mathcal{N}(m_c(x), L_c(x) L_c(x)^\top)\, \mathcal{N}(m_u(x), L_u(x) L_u(x)^\top)

    with lower triangular L from the encoder; ``joint`` adds what the blocks have in common,

    .. math:: u \mid z_\mathrm{class} \sim \mathcal{N}\big(m_u + B\, L_c^{-1}
        (z_\mathrm{class} - m_c),\; L_u L_u^\top\big)

    Use it where dims trade off against each other, as in linear and nearly linear decoders, where
    it is exact: within the blocks, and with ``joint`` altogether. Its cost grows with the square
    of the widths.

    References:
        Correlated posteriors as in Stochastic Backpropagation and Approximate Inference in Deep
        Generative Models (Rezende et al., 2014), https://arxiv.org/abs/1401.4082

    Args:
        encoder: Maps x to features, with an attribute ``n_features``.
        split: Numbers of class and nuisance dims.
        joint: Whether the blocks are correlated with each other.
        min_scale: Lower bound of the diagonal of L.
        style_encoder: A trunk of its own for the style code; ``encoder`` serves both if None.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: LatentSplit,
        joint: bool = False,
        min_scale: float = 1e-3,
        style_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.trunks = Trunks(encoder, style_encoder)
        self.split, self.joint, self.min_scale = split, joint, min_scale
        self.class_of = nn.Linear(self.trunks.n_class, _numbers(split.n_class))
        self.style_of = nn.Linear(self.trunks.n_style, _numbers(split.n_nuisance))
        if joint:
            n = split.n_class * split.n_nuisance
            self.common_of = nn.Linear(self.trunks.n_style, n)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        y: Shaped[Tensor, "batch *classes"] | None = None,
    ) -> None:
        class_features, style_features = self.trunks(x)
        loc, lower = self._gaussian(self.class_of(class_features), self.split.n_class)
        style_loc, style_lower = self._gaussian(
            self.style_of(style_features), self.split.n_nuisance
        )
        with pyro.plate("batch", len(x)):
            z_class = pyro.sample("z_class", _normal(loc, lower))
            if self.joint:
                common = full_precision(self.common_of(style_features))
                common = common.unflatten(-1, (self.split.n_nuisance, self.split.n_class))
                rest = (z_class - loc).unsqueeze(-1)
                noise = torch.linalg.solve_triangular(lower, rest, upper=False)
                style_loc = style_loc + (common @ noise).squeeze(-1)
            pyro.sample("style", _normal(style_loc, style_lower))

    def _gaussian(self, numbers: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Location and lower triangle."""
        loc, diagonal, below = full_precision(numbers).split([n, n, n * (n - 1) // 2], -1)
        rows, columns = torch.tril_indices(n, n, -1, device=numbers.device)
        lower = below.new_zeros(*below.shape[:-1], n, n)
        lower[..., rows, columns] = below
        return loc, lower + positive(diagonal, self.min_scale).diag_embed()


@register_kl(torch.distributions.MultivariateNormal, torch.distributions.Independent)
def _kl_to_diagonal(
    p: torch.distributions.MultivariateNormal, q: torch.distributions.Independent
) -> Tensor:
    """Divergence from independent Gaussians, which torch has only the other way round."""
    base = q.base_dist
    if not isinstance(base, torch.distributions.Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    lower: Tensor = p.scale_tril
    squares = lower.square().sum(-1) + (p.loc - base.loc).square()
    logs = 2 * (base.scale.log() - lower.diagonal(dim1=-2, dim2=-1).log())
    return 0.5 * (squares / base.scale.square() + logs - 1).sum(-1)


def _normal(loc: Tensor, lower: Tensor) -> dist.MultivariateNormal:
    return dist.MultivariateNormal(loc, scale_tril=lower, validate_args=False)


def _numbers(n: int) -> int:
    """Entries of a location and of a lower triangle."""
    return 2 * n + n * (n - 1) // 2

"""Densities of one concept's dims: a Gaussian, or one for each value of the concept."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from svae.saving import Described

__all__ = ["Block"]

_LOG_2PI = math.log(2 * math.pi)
_START = 3.0  # distance of the means from the centre, in standard deviations


class Block(Described, nn.Module):
    r"""The density of the dims that hold one concept, in nats with all constants.

    A concept without values (``n_values=0``) is standard normal,

    .. math:: p(z) = \mathcal{N}(z; 0, I),

    and two examples that share it are correlated, each dim with its own :math:`\rho_d`:

    .. math:: p(z^b \mid z^a) = \prod_d \mathcal{N}(z^b_d; \rho_d z^a_d, 1 - \rho_d^2)

    which keeps :math:`p(z^b) = \mathcal{N}(0, I)`. A concept with K values has a Gaussian each,

    .. math:: p(z \mid k) = \mathcal{N}(z; \mu_k, \mathrm{diag}\,\sigma_k^2), \quad
              p(z) = \sum_k \pi_k\, p(z \mid k)

    and two examples that share it have one value, and correlate about its mean in the same way.

    Unlike the paper, which puts a standard normal on every concept and one fixed :math:`\rho`,
    :math:`\rho` is learned (its normaliser is part of the density), and concepts with values get
    the density that classes really have: separate clouds.

    References:
        A Disentangling Invertible Interpretation Network for Explaining Latent Representations
        (Esser et al., 2020), https://arxiv.org/abs/2004.13166

    Args:
        n_dims: Number of dims.
        n_values: Number of values K of the concept; 0 where it has none.
        rho: Correlation that pairs start from, in (0, 1).

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, n_dims: int, n_values: int = 0, rho: float = 0.9) -> None:
        super().__init__()
        if n_dims < 0 or n_values < 0 or n_values == 1 or not 0 < rho < 1:
            raise ValueError(
                "a block needs n_dims >= 0, n_values of 0 or at least 2, and rho between 0 and 1; "
                f"got {n_dims}, {n_values} and {rho}. A concept with a single value is none."
            )
        self.n_dims, self.n_values = n_dims, n_values
        if n_values:
            self.loc = nn.Parameter(_corners(n_values, n_dims))
            self.log_scale = nn.Parameter(torch.zeros(n_values, n_dims))
            self.log_share: Tensor
            self.register_buffer("log_share", torch.full((n_values,), -math.log(n_values)))
        self.rho_logit = nn.Parameter(torch.full((n_dims,), math.log(rho / (1 - rho))))

    def set_shares(self, counts: Float[Tensor, " values"]) -> None:
        r"""Takes the shares :math:`\pi_k` of the values from how often each occurs."""
        smoothed = counts.to(self.log_share) + 1
        self.log_share.copy_((smoothed / smoothed.sum()).log())

    @torch.no_grad()
    def start(self, z: Float[Tensor, "n D"], value: Int[Tensor, " n"]) -> None:
        """Puts the Gaussian of each value where its examples are, if there are two or more."""
        for k in range(self.n_values if self.n_dims else 0):
            rows = z[value == k]
            if len(rows) < 2:
                continue
            self.loc[k] = rows.mean(0)
            scale = rows.std(0).clamp(0.1, 10.0)
            self.log_scale[k] = scale.expm1().log() - math.log(math.e - 1)

    @property
    def rho(self) -> Float[Tensor, " D"]:
        """Correlation of each dim between examples that share the concept."""
        return self.rho_logit.sigmoid()

    def log_joint(self, z: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch values"]:
        """Log p(z, k) for every value k."""
        scale = self._scale()
        noise = (z.unsqueeze(-2) - self.loc) / scale
        density = -0.5 * (noise.square() + _LOG_2PI).sum(-1) - scale.log().sum(-1)
        return density + self.log_share

    def log_prob(
        self, z: Float[Tensor, "*batch D"], value: Int[Tensor, " *batch"] | None = None
    ) -> Float[Tensor, " *batch"]:
        """Log-density of ``z``: given the value where it is known (not negative)."""
        if not self.n_values:
            return -0.5 * (z.square() + _LOG_2PI).sum(-1)
        joint = self.log_joint(z)
        marginal = joint.logsumexp(-1)
        if value is None:
            return marginal
        picked = (joint - self.log_share).gather(-1, value.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return torch.where(value >= 0, picked, marginal)

    def pair_log_prob(
        self, second: Float[Tensor, "*batch D"], first: Float[Tensor, "*batch D"]
    ) -> Float[Tensor, " *batch"]:
        """Log-density of the dims of one example given those of another that shares them."""
        if not self.n_values:
            return self._correlated(second, first)
        scale = self._scale()
        a, b = ((z.unsqueeze(-2) - self.loc) / scale for z in (first, second))
        given = self._correlated(b, a) - scale.log().sum(-1)
        joint = self.log_joint(first)
        return (joint + given).logsumexp(-1) - joint.logsumexp(-1)

    def _correlated(self, second: Tensor, first: Tensor) -> Tensor:
        rho = self.rho
        variance = 1 - rho.square() + 1e-5
        error = (second - rho * first).square() / variance
        return -0.5 * (error + variance.log() + _LOG_2PI).sum(-1)

    def sample(
        self,
        n: int,
        value: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n D"]:
        """Draws, of the values given or of all by their shares."""
        first = next(self.parameters())
        noise = torch.randn(n, self.n_dims, generator=generator, dtype=first.dtype)
        noise = noise.to(first.device)
        if not self.n_values:
            return noise
        if value is None:
            shares = self.log_share.exp().cpu()
            value = torch.multinomial(shares, n, replacement=True, generator=generator)
        value = value.to(first.device)
        return self.loc[value] + self._scale()[value] * noise

    def step(
        self,
        z: Float[Tensor, "n D"],
        keep: float = 0.9,
        jump: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n D"]:
        r"""One step of a random walk that leaves the block's density as it is.

        Ornstein-Uhlenbeck, :math:`z' = \mu + r (z - \mu) + \sigma \sqrt{1 - r^2}\, \epsilon`,
        about zero or about the mean of the value that z has, which is drawn from its posterior
        p(k given z); with probability ``jump`` a new value is drawn first, by its share.

        Args:
            z: Where the walk stands.
            keep: r, in [0, 1].
            jump: Probability of a draw of a new value, for concepts with values.
            generator: Source of the noise.

        Raises:
            ValueError: If ``keep`` or ``jump`` is outside of [0, 1].
        """
        if not (0 <= keep <= 1 and 0 <= jump <= 1):
            raise ValueError(f"keep and jump must lie in [0, 1], got {keep} and {jump}")
        fresh = math.sqrt(1 - keep**2)
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
        if not self.n_values:
            return keep * z + fresh * noise
        posterior = self.log_joint(z).softmax(-1).cpu()
        old = torch.multinomial(posterior, 1, generator=generator).squeeze(-1)
        shares = self.log_share.exp().cpu()
        drawn = torch.multinomial(shares, len(z), replacement=True, generator=generator)
        jumps = torch.rand(len(z), generator=generator) < jump
        new = torch.where(jumps, drawn, old).to(z.device)
        old, scale = old.to(z.device), self._scale()
        standard = (z - self.loc[old]) / scale[old]
        return self.loc[new] + scale[new] * (keep * standard + fresh * noise)

    def _scale(self) -> Float[Tensor, "values D"]:
        # Bounded below, so that no cloud becomes a point; 1 where the parameter is 0.
        return functional.softplus(self.log_scale + math.log(math.e - 1)) + 1e-2


def _corners(n_values: int, n_dims: int) -> Float[Tensor, "values D"]:
    """Means of equal norm, as far apart as the dims allow: a turned simplex, or random."""
    generator = torch.Generator().manual_seed(n_values)
    if n_dims >= n_values:
        turn = torch.linalg.qr(torch.randn(n_dims, n_dims, generator=generator))[0]
        points = turn[:n_values] - turn[:n_values].mean(0)
    else:
        points = torch.randn(n_values, n_dims, generator=generator)
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return _START * points / norm

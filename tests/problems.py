"""Models whose evidence and posterior are known: what an ELBO must be, to the last digit."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from svae.models import SVAE

N_CLASS, N_STYLE, N_PIXELS, N_CLASSES = 2, 3, 5, 3


class LinearGaussian(nn.Module):
    r"""A supervised VAE in which everything but the label is linear and Gaussian, in float64.

    .. math:: x = A z_\mathrm{class} + B u + C_y + b + \sigma \epsilon

    Args:
        label_first: The label comes first, and :math:`z_\mathrm{class} \sim \mathcal{N}(m_y, S)`;
            else the class latent, and a linear head draws the label from it.
        offsets: Whether x depends on the label beside the latents (:math:`C \neq 0`), which no
            ``log_joint(z_class)`` can say. Needs ``label_first``.
        seed: Seed of all numbers.
    """

    def __init__(self, label_first: bool, offsets: bool = False, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def numbers(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.label_first = label_first
        self.loading, self.bias = numbers(N_PIXELS, N_CLASS + N_STYLE), numbers(N_PIXELS)
        self.class_loc, self.class_logits = numbers(N_CLASSES, N_CLASS), numbers(N_CLASSES)
        self.readout = numbers(N_CLASSES, N_CLASS)
        self.offset = nn.Parameter(numbers(N_CLASSES, N_PIXELS).detach() * offsets)
        root = 0.5 * numbers(N_CLASS, N_CLASS).detach() + torch.eye(N_CLASS)
        self.class_cov = nn.Parameter(
            root @ root.T if label_first else torch.eye(N_CLASS).double()
        )
        self.scale = 0.7
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            if self.label_first:
                y = pyro.sample(
                    "y", dist.Categorical(logits=self.class_logits.expand(len(x), -1)), obs=y
                )
                z_class = pyro.sample("z_class", self._normal(self.class_loc[y], self.class_cov))
            else:
                loc = self.class_loc.new_zeros(len(x), N_CLASS)
                z_class = pyro.sample("z_class", self._normal(loc, self.class_cov))
                y = pyro.sample("y", dist.Categorical(logits=z_class @ self.readout.T), obs=y)
            zero = self.class_loc.new_zeros(len(x), N_STYLE)
            style = pyro.sample("style", self._normal(zero, torch.eye(N_STYLE).double()))
            loc = torch.cat([z_class, style], -1) @ self.loading.T + self.bias + self.offset[y]
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)

    @staticmethod
    def _normal(loc: Tensor, cov: Tensor) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(loc, cov.expand(*loc.shape[:-1], *cov.shape[-2:]))

    def prior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (batch, dims) and covariance of z given y, or of z where the label comes last."""
        first = self.class_loc[y] if self.label_first else torch.zeros(len(y), N_CLASS).double()
        loc = torch.cat([first, torch.zeros(len(y), N_STYLE).double()], -1)
        return loc, torch.block_diag(self.class_cov, torch.eye(N_STYLE).double())

    def posterior(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of z given x and y, or given x where the label comes last."""
        loc, cov = self.prior(y)
        gain = cov @ self.loading.T @ torch.linalg.inv(self._x_cov(cov))
        rest = x - loc @ self.loading.T - self.bias - self.offset[y]
        return loc + rest @ gain.T, cov - gain @ self.loading @ cov

    def _x_cov(self, cov: Tensor) -> Tensor:
        return self.loading @ cov @ self.loading.T + self.scale**2 * torch.eye(N_PIXELS).double()

    def log_x_given_y(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x given y), or log p(x) where the label comes last."""
        loc, cov = self.prior(y)
        return dist.MultivariateNormal(
            loc @ self.loading.T + self.bias + self.offset[y], self._x_cov(cov)
        ).log_prob(x)

    def log_x_and(self, x: Tensor) -> Tensor:
        """log p(x, y = k) for every class; only where the label comes first."""
        rows = [self.log_x_given_y(x, torch.full((len(x),), k)) for k in range(N_CLASSES)]
        return torch.stack(rows, -1) + self.class_logits.log_softmax(-1)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), in nats."""
        if self.label_first:
            return self.log_x_and(x).logsumexp(-1)
        return self.log_x_given_y(x, torch.zeros(len(x), dtype=torch.long))

    def label_logits(self, z_class: Tensor) -> Tensor:
        """log p(y given z_class), normalised."""
        if not self.label_first:
            return (z_class @ self.readout.T).log_softmax(-1)
        rows = [self._normal(loc, self.class_cov).log_prob(z_class) for loc in self.class_loc]
        return (torch.stack(rows, -1) + self.class_logits).log_softmax(-1)


class WithLogJoint(LinearGaussian):
    """The same with the method that spares the enumeration of y."""

    def log_joint(self, z_class: Tensor) -> Tensor:
        if self.label_first:
            rows = [self._normal(loc, self.class_cov).log_prob(z_class) for loc in self.class_loc]
            return torch.stack(rows, -1) + self.class_logits.log_softmax(-1)
        zero = torch.zeros(N_CLASS).double()
        return self.label_logits(z_class) + self._normal(zero, self.class_cov).log_prob(
            z_class
        ).unsqueeze(-1)


class Posterior(nn.Module):
    """The true posterior as a guide: of z given x and y, or with y summed out where it is None.

    Args:
        model: Whose posterior.
        shift: Added to every mean; a wrong guide where it is not 0.
        spread: Factor on every standard deviation; a wrong guide where it is not 1.
        seen: log p(what is seen of the label given y = k), ``(batch, classes)``. The posterior is
            then given it, and not the y of a call.
    """

    def __init__(
        self,
        model: LinearGaussian,
        shift: float = 0.0,
        spread: float = 1.0,
        seen: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.of = (model,)  # in a tuple: the guide has no parameters of its own
        self.shift, self.spread, self.seen = shift, spread, seen

    def moments(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of q(z given x, y)."""
        loc, cov = self.of[0].posterior(x, y)
        return loc + self.shift, self.spread**2 * cov

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        model = self.of[0]
        if self.seen is not None:
            y = None
        if y is not None or not model.label_first:
            components = [torch.zeros(len(x), dtype=torch.long) if y is None else y]
            logits = torch.zeros(len(x), 1).double()
        else:
            components = [torch.full((len(x),), k) for k in range(N_CLASSES)]
            logits = model.log_x_and(x) + (0 if self.seen is None else self.seen)
        moments = [self.moments(x, k) for k in components]
        loc, cov = torch.stack([m[0] for m in moments], 1), torch.stack([m[1] for m in moments])
        c, u = slice(0, N_CLASS), slice(N_CLASS, None)
        parts = dist.MultivariateNormal(loc[..., c], cov[:, c, c].expand(len(x), -1, -1, -1))
        with pyro.plate("batch", len(x)):
            z_class = pyro.sample("z_class", _mixture(logits, parts))
            logits = logits.log_softmax(-1) + parts.log_prob(z_class.unsqueeze(1))
            gain = cov[:, u, c] @ torch.linalg.inv(cov[:, c, c])
            rest = (z_class.unsqueeze(1) - loc[..., c]).unsqueeze(-1)
            style_loc = loc[..., u] + (gain @ rest).squeeze(-1)
            style_cov = cov[:, u, u] - gain @ cov[:, c, u]
            style = dist.MultivariateNormal(style_loc, style_cov.expand(len(x), -1, -1, -1))
            pyro.sample("style", _mixture(logits, style))


def _mixture(logits: Tensor, parts: dist.MultivariateNormal) -> dist.TorchDistribution:
    if logits.shape[-1] == 1:  # a plain Gaussian has a closed-form divergence
        return dist.MultivariateNormal(parts.mean[:, 0], parts.covariance_matrix[:, 0])
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)


def expected_terms(
    model: LinearGaussian, guide: Posterior, x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """Every term of the objective in expectation over the guide, in nats per example."""
    loc, cov = guide.moments(x, y)
    prior_loc, prior_cov = model.prior(y)
    c = slice(0, N_CLASS)
    mean = loc @ model.loading.T + model.bias + model.offset[y]
    noise = (model.loading @ cov @ model.loading.T).trace()
    squares = (x - mean).square().sum(-1) + noise
    normaliser = N_PIXELS * math.log(model.scale * math.sqrt(2 * math.pi))
    rate_class = _divergence(loc[:, c], cov[c, c], prior_loc[:, c], prior_cov[c, c])
    # The chain rule: the rate of style given z_class is what the joint has beyond the class.
    rate = _divergence(loc, cov, prior_loc, prior_cov)
    nodes, weights = _normal_grid(60)
    z_class = loc[:, None, c] + nodes @ torch.linalg.cholesky(cov[c, c]).T
    label = -model.label_logits(z_class)[torch.arange(len(y)), :, y] @ weights
    first = -model.class_logits.log_softmax(-1)[y] * model.label_first
    return {
        "x": squares / (2 * model.scale**2) + normaliser,
        "z_class": rate_class,
        "style": rate - rate_class,
        "label": label,
        "y": first,
    }


def _divergence(loc: Tensor, cov: Tensor, other_loc: Tensor, other_cov: Tensor) -> Tensor:
    inverse = torch.linalg.inv(other_cov)
    gap = loc - other_loc
    squares = ((gap @ inverse) * gap).sum(-1)
    logs = torch.logdet(other_cov) - torch.logdet(cov)
    return 0.5 * ((inverse @ cov).trace() + squares - loc.shape[-1] + logs)


def _normal_grid(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes and weights for a standard normal of two dims."""
    import numpy as np

    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(n))
    weights = weights / weights.sum()
    return torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten()


def linear_gaussian(
    label_first: bool, *, shift: float = 0.0, spread: float = 1.0, own_log_joint: bool = True
) -> SVAE:
    """The pair of model and (true or wrong) posterior."""
    model = (WithLogJoint if own_log_joint else LinearGaussian)(label_first)
    return SVAE(model, Posterior(model, shift, spread), (N_PIXELS,))


def examples(n: int = 7) -> tuple[Tensor, Tensor]:
    """Inputs and labels; which ones does not matter to an identity."""
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(n, N_PIXELS, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % N_CLASSES

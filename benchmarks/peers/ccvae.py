"""A VAE whose class dims each carry one characteristic of the label."""

import torch
from torch import Tensor, nn

from benchmarks.peers.common import (
    Gaussian,
    Peer,
    Posterior,
    Sizes,
    bernoulli,
    mixture_log_prob,
    standard_normal,
)
from svae.latent import Latent

_DRAWS = 20  # of the class dims, for q(y given x)


class CCVAE(Peer):
    r"""Characteristic captures: a conditional prior on K class dims, a classifier of each dim.

    .. math:: L = -\mathbb{E}_q\left[\frac{q(y \mid z_c)}{q(y \mid x)}
        \log \frac{p(x \mid z)\, p(z_c \mid y)\, p(z_s)}{q(y \mid z_c)\, q(z \mid x)}\right]
        - \log q(y \mid x) - \log p(y)

    with :math:`q(y \mid x) = \mathbb{E}_{q(z_c \mid x)}\, q(y \mid z_c)` by draws. The classifier
    takes z_c dim by dim. As in the authors' code, q(y given z) of the fraction does not move z,
    and the weight :math:`q(y \mid z_c) / q(y \mid x)` is learnt through: without that the terms of
    the classifier cancel on average.

    References:
        Capturing Label Characteristics in VAEs (Joy et al., 2021),
        https://arxiv.org/abs/2006.10102

    Args:
        sizes: What every model is built with; one class dim for each class.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        k = sizes.n_classes
        self.n_style = max(sizes.n_latent - k, 1)
        self.trunk = sizes.encoder()
        self.posterior = Posterior(self.trunk.n_features, k + self.n_style)
        self.decoder = sizes.decoder(k + self.n_style)
        self.weight, self.bias = nn.Parameter(torch.ones(k)), nn.Parameter(torch.zeros(k))
        self.loc = nn.Parameter(4 * torch.eye(k) - 2)
        self.log_scale = nn.Parameter(torch.zeros(k, k))

    def classify(self, z_class: Tensor) -> Tensor:
        """Logits, each of its own dim."""
        return z_class * self.weight + self.bias

    def _split(self, q: Gaussian) -> tuple[Gaussian, Gaussian]:
        k = self.sizes.n_classes
        return (
            Gaussian(q.loc[..., :k], q.log_scale[..., :k]),
            Gaussian(q.loc[..., k:], q.log_scale[..., k:]),
        )

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The supervised objective; examples without a label have the plain bound of a mixture."""
        q_class, q_style = self._split(self.posterior(self.trunk(x)))
        z_class, z_style = q_class.draw(), q_style.draw()
        seen = bernoulli(self.decoder(torch.cat([z_class, z_style], -1)), x)
        style = q_style.divergence(standard_normal(z_style))
        log_each = self.classify(z_class.detach()).log_softmax(-1)
        answer = y.clamp(min=0)
        prior = Gaussian(self.loc[answer], self.log_scale[answer])
        log_y_z = log_each.gather(-1, answer[:, None])[:, 0]
        draws = torch.stack([q_class.draw() for _ in range(_DRAWS)])
        log_y_x = self.classify(draws).log_softmax(-1).exp().mean(0).log()
        log_y_x = log_y_x.gather(-1, answer[:, None])[:, 0]
        ratio = (log_y_z - log_y_x).exp()
        bound = seen - style + prior.log_prob(z_class) - q_class.log_prob(z_class) - log_y_z
        supervised = ratio * bound + log_y_x
        of_class = mixture_log_prob(Gaussian(self.loc, self.log_scale), z_class)
        mixed = seen - style + of_class - q_class.log_prob(z_class)
        total = -torch.where(y >= 0, supervised, mixed).mean()
        return total, {"loss": total.detach(), "label": -log_y_x.mean().detach()}

    def predict(self, x: Tensor) -> Tensor:
        """Logits at the posterior mean."""
        return self.classify(self._split(self.posterior(self.trunk(x)))[0].loc)

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """Class dims and style."""
        parts = self._split(self.posterior(self.trunk(x)))
        return Latent(*(q.draw() if sample else q.loc for q in parts))

    def read(self, latent: Latent) -> Tensor:
        """Logits of the class dims."""
        return self.classify(latent.z_class)

    def decode(self, latent: Latent) -> Tensor:
        """Means of pixels."""
        return self.decoder(torch.cat([latent.z_class, latent.z_nuisance], -1)).sigmoid()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures of the classes: class dims from their conditional prior, style from its own."""
        k = self.sizes.n_classes
        noise = torch.randn(len(y), k + self.n_style, generator=generator).to(self.weight)
        z_class = self.loc[y] + self.log_scale[y].exp() * noise[:, :k]
        return self.decode(Latent(z_class, noise[:, k:]))

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """Log of p(x, z) / q(z given x), the class summed over, for n draws."""
        q_class, q_style = self._split(self.posterior(self.trunk(x)))
        rows = []
        for _ in range(n):
            z_class, z_style = q_class.draw(), q_style.draw()
            seen = bernoulli(self.decoder(torch.cat([z_class, z_style], -1)), x)
            prior = mixture_log_prob(Gaussian(self.loc, self.log_scale), z_class)
            prior = prior + standard_normal(z_style).log_prob(z_style)
            rows.append(seen + prior - q_class.log_prob(z_class) - q_style.log_prob(z_style))
        return torch.stack(rows)

"""Semi-supervised VAEs with the label as a discrete latent."""

import math

import torch
from torch import Tensor, nn

from benchmarks.peers.common import (
    Gaussian,
    Peer,
    Posterior,
    Sizes,
    bernoulli,
    cross_entropy,
    standard_normal,
)
from benchmarks.peers.plain import VAEClassifier
from svae.latent import Latent
from svae.nets import MLP, MLPEncoder


class M2(Peer):
    r"""Generates x from the label and a Gaussian, and classifies with the same encoder.

    .. math:: -L(x, y) = \mathbb{E}_{q(z \mid x, y)}[\log p(x \mid y, z)]
        - \mathrm{KL}(q(z \mid x, y)\,\|\,p(z)) + \log p(y)

    with labels ``L(x, y) + label_weight * CE``, without
    :math:`\sum_y q(y \mid x) L(x, y) - H(q(y \mid x))`. ``z_class`` is the probabilities of the
    label, ``z_nuisance`` is z.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014),
        https://arxiv.org/abs/1406.5298

    Args:
        sizes: What every model is built with.
        label_weight: Of the cross-entropy.
    """

    def __init__(self, sizes: Sizes, label_weight: float = 50.0) -> None:
        super().__init__(sizes)
        self.label_weight = label_weight
        self.trunk = self.make_trunk()
        n, k = self.trunk.n_features, sizes.n_classes
        self.head = nn.Linear(n, k)
        self.posterior = nn.Sequential(
            MLP([n + k, 256]), nn.SiLU(), Posterior(256, sizes.n_nuisance)
        )
        self.decoder = self.make_decoder(k + sizes.n_nuisance)

    def make_trunk(self) -> nn.Module:
        """From what is generated to features."""
        return self.sizes.encoder()

    def make_decoder(self, n_latent: int) -> nn.Module:
        """From label and z to the parameter of the likelihood."""
        return self.sizes.decoder(n_latent)

    def log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        """Log p(x given the decoder's output), in nats."""
        return bernoulli(output, x)

    def bound(self, features: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The evidence lower bound of inputs with labels given as vectors, in nats."""
        q = self.posterior(torch.cat([features, y], -1))
        z = q.draw()
        found = self.log_likelihood(self.decoder(torch.cat([y, z], -1)), x)
        return found - q.divergence(standard_normal(z)) - math.log(self.sizes.n_classes)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound with the label where it is known, averaged over labels where it is not."""
        features, known = self.trunk(x), y >= 0
        bound = torch.zeros(len(x), device=x.device)
        if bool(known.any()):
            bound[known] = self.bound(features[known], x[known], self.one_hot(y[known]))
        if not bool(known.all()):
            bound[~known] = self._marginal(features[~known], x[~known])
        total = -bound.mean()
        if self.label_weight:
            total = total + self.label_weight * cross_entropy(self.head(features), y)
        return total, {"loss": total.detach(), "bound": bound.mean().detach()}

    def _marginal(self, features: Tensor, x: Tensor) -> Tensor:
        log_q = self.log_answers(features, x)
        each = torch.eye(self.sizes.n_classes, device=x.device)
        bounds = torch.stack([self.bound(features, x, row.expand(len(x), -1)) for row in each], -1)
        return (log_q.exp() * (bounds - log_q)).sum(-1)

    def log_answers(self, features: Tensor, x: Tensor) -> Tensor:
        """Log q(y given x), which bounds of inputs without a label draw from."""
        return self.head(features).log_softmax(-1)

    def predict(self, x: Tensor) -> Tensor:
        """Logits of q(y given x)."""
        return self.head(self.trunk(x))

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """Probabilities of the label, and z given x and them."""
        features = self.trunk(x)
        y = self.predict(x).softmax(-1)
        q = self.posterior(torch.cat([features, y], -1))
        return Latent(y, q.draw() if sample else q.loc)

    def read(self, latent: Latent) -> Tensor:
        """Logarithms of the probabilities, which are the class part."""
        return latent.z_class.clamp(min=1e-30).log()

    def decode(self, latent: Latent) -> Tensor:
        """Means of pixels."""
        return self.decoder(torch.cat([latent.z_class, latent.z_nuisance], -1)).sigmoid()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures of the classes with z from its prior."""
        z = torch.randn(len(y), self.sizes.n_nuisance, generator=generator)
        return self.decode(Latent(self.one_hot(y), z.to(next(self.decoder.parameters()))))

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """Log of p(x, y, z) / q(y, z given x) for n draws of both."""
        features, k = self.trunk(x), self.sizes.n_classes
        log_q = self.log_answers(features, x)
        rows = []
        for _ in range(n):
            answer = torch.multinomial(log_q.exp(), 1)
            y = self.one_hot(answer[:, 0])
            q = self.posterior(torch.cat([features, y], -1))
            z = q.draw()
            seen = self.log_likelihood(self.decoder(torch.cat([y, z], -1)), x)
            of_y = -math.log(k) - log_q.gather(1, answer)[:, 0]
            rows.append(seen + standard_normal(z).log_prob(z) - q.log_prob(z) + of_y)
        return torch.stack(rows)


class M1M2(M2):
    """M2 on the latent of a VAE that was trained first, without labels.

    Args:
        m1: The VAE; it is frozen.
        label_weight: Of the cross-entropy.
    """

    def __init__(self, m1: VAEClassifier, label_weight: float = 50.0) -> None:
        super().__init__(m1.sizes, label_weight)
        self.m1 = m1.requires_grad_(False).eval()

    def make_trunk(self) -> nn.Module:
        """From the first latent to features."""
        return MLPEncoder((self.sizes.n_latent,), hidden=(256,))

    def make_decoder(self, n_latent: int) -> nn.Module:
        """To means and log-scales of the first latent."""
        return MLP([n_latent, 256, 2 * self.sizes.n_latent])

    def train(self, mode: bool = True) -> "M1M2":
        """Training mode of the second model alone."""
        super().train(mode)
        self.m1.eval()
        return self

    def log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        """Log-density of the first latent, in nats."""
        loc, log_scale = output.chunk(2, -1)
        return Gaussian(loc, log_scale.clamp(-7, 3)).log_prob(x)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """M2's loss on a draw of the first latent."""
        with torch.no_grad():
            first = self.m1.posterior(self.m1.trunk(x)).draw()
        return super().loss(first, y)

    def _first(self, x: Tensor) -> Tensor:
        return self.m1.posterior(self.m1.trunk(x)).loc

    def predict(self, x: Tensor) -> Tensor:
        """Logits of q(y given the mean of the first latent)."""
        return self.head(self.trunk(self._first(x)))

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """Probabilities of the label, and the second latent given the first and them."""
        features = self.trunk(self._first(x))
        y = self.head(features).softmax(-1)
        q = self.posterior(torch.cat([features, y], -1))
        return Latent(y, q.draw() if sample else q.loc)

    def decode(self, latent: Latent) -> Tensor:
        """Pictures of the mean of the first latent."""
        both = torch.cat([latent.z_class, latent.z_nuisance], -1)
        return self.m1.decoder(self.decoder(both).chunk(2, -1)[0]).sigmoid()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures of draws of both latents."""
        z = torch.randn(len(y), self.sizes.n_nuisance, generator=generator)
        loc, log_scale = self.decoder(
            torch.cat([self.one_hot(y), z.to(self.head.weight)], -1)
        ).chunk(2, -1)
        noise = torch.randn(loc.shape, generator=generator).to(loc)
        return self.m1.decoder(loc + log_scale.clamp(-7, 3).exp() * noise).sigmoid()

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """Log of p(x, z1, y, z2) / q(z1, y, z2 given x) for n draws of all."""
        q = self.m1.posterior(self.m1.trunk(x))
        rows = []
        for _ in range(n):
            first = q.draw()
            seen = bernoulli(self.m1.decoder(first), x)
            rows.append(seen + super().log_weights(first, 1)[0] - q.log_prob(first))
        return torch.stack(rows)

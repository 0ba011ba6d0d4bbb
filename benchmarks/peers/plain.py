"""A classifier, and an unsupervised VAE with a classifier on its latent."""

import torch
from torch import Tensor, nn

from benchmarks.peers.common import (
    Peer,
    Posterior,
    Sizes,
    answering,
    bernoulli,
    cross_entropy,
    standard_normal,
)
from svae.latent import Latent


class Classifier(Peer):
    """The encoder and a linear layer, and nothing else.

    Args:
        sizes: What every model is built with.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.trunk = sizes.encoder()
        self.head = nn.Linear(self.trunk.n_features, sizes.n_classes)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy."""
        found = cross_entropy(self.predict(x), y)
        return found, {"loss": found.detach()}

    def predict(self, x: Tensor) -> Tensor:
        """Logits of the classes."""
        return self.head(self.trunk(x))


class VAEClassifier(Peer):
    r"""A VAE that sees no labels, and a linear classifier on its latent.

    .. math:: L = -\log p(x \mid z) + \beta\, \mathrm{KL}(q(z \mid x)\,\|\,\mathcal{N}(0, I))

    The classifier reads z and moves it not. What it reads, the row space of its weights, is the
    class part; the orthogonal complement is the nuisance. Both are normal under the prior.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114;
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        sizes: What every model is built with.
        beta: Weight of the divergence.
    """

    def __init__(self, sizes: Sizes, beta: float = 1.0) -> None:
        super().__init__(sizes)
        self.beta = beta
        self.trunk = sizes.encoder()
        self.posterior = Posterior(self.trunk.n_features, sizes.n_latent)
        self.decoder = sizes.decoder(sizes.n_latent)
        self.head = nn.Linear(sizes.n_latent, sizes.n_classes)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound, and the classifier's cross-entropy, which trains the classifier alone."""
        q = self.posterior(self.trunk(x))
        z = q.draw()
        rate = q.divergence(standard_normal(z)).mean()
        distortion = -bernoulli(self.decoder(z), x).mean()
        label = cross_entropy(self.head(z.detach()), y)
        total = distortion + self.beta * rate + label
        return total, {
            "loss": total.detach(),
            "rate": rate.detach(),
            "distortion": distortion.detach(),
        }

    def predict(self, x: Tensor) -> Tensor:
        """Logits at the posterior mean."""
        return self.head(self.posterior(self.trunk(x)).loc)

    def basis(self) -> tuple[Tensor, Tensor]:
        """Orthonormal columns of what the classifier reads, and of what it does not."""
        weight = self.head.weight.detach()
        rows = weight - weight.mean(0)  # what all logits share changes no answer
        n_read = min(len(rows) - 1, rows.shape[1])
        axes = torch.linalg.svd(rows, full_matrices=True)[2].T
        return axes[:, :n_read], axes[:, n_read:]

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """What the classifier reads of z, and the rest of it."""
        q = self.posterior(self.trunk(x))
        z = q.draw() if sample else q.loc
        read, rest = self.basis()
        return Latent(z @ read, z @ rest)

    def read(self, latent: Latent) -> Tensor:
        """Logits of the class part."""
        return latent.z_class @ (self.head.weight @ self.basis()[0]).T + self.head.bias

    def decode(self, latent: Latent) -> Tensor:
        """Means of pixels."""
        read, rest = self.basis()
        z = latent.z_class @ read.T + latent.z_nuisance @ rest.T
        return self.decoder(z).sigmoid()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of the prior that the classifier answers with the wanted classes."""

        def draw(n: int) -> Tensor:
            noise = torch.randn(n, self.sizes.n_latent, generator=generator)
            return self.decoder(noise.to(self.head.weight)).sigmoid()

        return answering(draw, self.predict, y)

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """Log of p(x, z) / q(z given x) for n draws."""
        q = self.posterior(self.trunk(x))
        draws = [q.draw() for _ in range(n)]
        return torch.stack(
            [
                bernoulli(self.decoder(z), x) + standard_normal(z).log_prob(z) - q.log_prob(z)
                for z in draws
            ]
        )

"""A VAE with an encoder for the class and another for all else."""

import torch
from torch import Tensor, nn

from benchmarks.peers.common import (
    Gaussian,
    Peer,
    Posterior,
    Sizes,
    bernoulli,
    cross_entropy,
    mixture_log_prob,
    standard_normal,
)
from svae.latent import Latent
from svae.nets import MLP


class DIVA(Peer):
    r"""The domain invariant VAE without its part for domains.

    .. math:: L = -\mathbb{E}_q \log p(x \mid z_y, z_x) + \mathrm{KL}(q(z_x \mid x)\,\|\,
        \mathcal{N}(0, I)) + \mathrm{KL}(q(z_y \mid x)\,\|\,p(z_y \mid y))
        - \alpha\, \mathbb{E}_q \log q(y \mid z_y)

    References:
        DIVA: Domain Invariant Variational Autoencoders (Ilse et al., 2020),
        https://arxiv.org/abs/1905.10427

    Args:
        sizes: What every model is built with.
        label_weight: :math:`\alpha`. The authors weigh 3500 against a sum of 256-way pixel terms.
    """

    def __init__(self, sizes: Sizes, label_weight: float = 200.0) -> None:
        super().__init__(sizes)
        self.label_weight = label_weight
        self.trunk, self.style_trunk = sizes.encoder(), sizes.encoder()
        self.posterior = Posterior(self.trunk.n_features, sizes.n_class)
        self.style = Posterior(self.style_trunk.n_features, sizes.n_nuisance)
        self.prior = nn.Sequential(
            MLP([sizes.n_classes, 64]), nn.SiLU(), Posterior(64, sizes.n_class)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(sizes.n_class, sizes.n_classes))
        self.decoder = sizes.decoder(sizes.n_latent)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound and the cross-entropy; a class that is not known is the answered one."""
        q_class, q_style = self.posterior(self.trunk(x)), self.style(self.style_trunk(x))
        z_class, z_style = q_class.draw(), q_style.draw()
        logits = self.head(z_class)
        label = torch.where(y >= 0, y, logits.argmax(-1))
        seen = bernoulli(self.decoder(torch.cat([z_class, z_style], -1)), x)
        rate = q_class.divergence(self.prior(self.one_hot(label)))
        rate = rate + q_style.divergence(standard_normal(z_style))
        total = (rate - seen).mean() + self.label_weight * cross_entropy(logits, y)
        return total, {"loss": total.detach(), "rate": rate.mean().detach()}

    def predict(self, x: Tensor) -> Tensor:
        """Logits at the mean of the class part."""
        return self.head(self.posterior(self.trunk(x)).loc)

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """Class part and the rest, each by its own encoder."""
        parts = self.posterior(self.trunk(x)), self.style(self.style_trunk(x))
        return Latent(*(q.draw() if sample else q.loc for q in parts))

    def read(self, latent: Latent) -> Tensor:
        """Logits of the class part."""
        return self.head(latent.z_class)

    def decode(self, latent: Latent) -> Tensor:
        """Means of pixels."""
        return self.decoder(torch.cat([latent.z_class, latent.z_nuisance], -1)).sigmoid()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures of the classes, both parts from their priors."""
        prior: Gaussian = self.prior(self.one_hot(y))
        noise = torch.randn(len(y), self.sizes.n_latent, generator=generator).to(prior.loc)
        k = self.sizes.n_class
        z_class = prior.loc + prior.log_scale.exp() * noise[:, :k]
        return self.decode(Latent(z_class, noise[:, k:]))

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """Log of p(x, z) / q(z given x), the class summed over, for n draws."""
        q_class, q_style = self.posterior(self.trunk(x)), self.style(self.style_trunk(x))
        prior: Gaussian = self.prior(torch.eye(self.sizes.n_classes).to(x))
        rows = []
        for _ in range(n):
            z_class, z_style = q_class.draw(), q_style.draw()
            seen = bernoulli(self.decoder(torch.cat([z_class, z_style], -1)), x)
            of_class = mixture_log_prob(prior, z_class)
            of_style = standard_normal(z_style).log_prob(z_style)
            rows.append(
                seen + of_class + of_style - q_class.log_prob(z_class) - q_style.log_prob(z_style)
            )
        return torch.stack(rows)

"""A classifier through a bottleneck of few nats."""

import torch
from torch import Tensor, nn

from benchmarks.peers.common import Peer, Posterior, Sizes, cross_entropy, standard_normal


class VIB(Peer):
    r"""The deep variational information bottleneck.

    .. math:: L = \mathbb{E}_{q(z \mid x)}[-\log q(y \mid z)]
        + \beta\, \mathrm{KL}(q(z \mid x)\,\|\,\mathcal{N}(0, I))

    References:
        Deep Variational Information Bottleneck (Alemi et al., 2017),
        https://arxiv.org/abs/1612.00410

    Args:
        sizes: What every model is built with.
        beta: Weight of the rate.
        n_latent: Dims of the bottleneck; those of the other models if None.
        trunk: The encoder; that of the other models if None.
    """

    def __init__(
        self,
        sizes: Sizes,
        beta: float = 1e-3,
        n_latent: int | None = None,
        trunk: nn.Module | None = None,
    ) -> None:
        super().__init__(sizes)
        self.beta = beta
        self.trunk = sizes.encoder() if trunk is None else trunk
        n_latent = n_latent or sizes.n_latent
        self.posterior = Posterior(self.trunk.n_features, n_latent)  # pyright: ignore
        self.head = nn.Linear(n_latent, sizes.n_classes)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of a draw, and the rate."""
        q = self.posterior(self.trunk(x))
        z = q.draw()
        rate = q.divergence(standard_normal(z)).mean()
        total = cross_entropy(self.head(z), y) + self.beta * rate
        return total, {"loss": total.detach(), "rate": rate.detach()}

    def predict(self, x: Tensor) -> Tensor:
        """Logits at the mean."""
        return self.head(self.posterior(self.trunk(x)).loc)

    def averaged(self, x: Tensor, n: int = 12) -> Tensor:
        """Logarithm of the mean probabilities over draws."""
        q = self.posterior(self.trunk(x))
        return torch.stack([self.head(q.draw()).softmax(-1) for _ in range(n)]).mean(0).log()

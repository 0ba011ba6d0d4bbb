"""A classifier that is a flow with one Gaussian for each class."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.common import Peer, Sizes, cross_entropy
from svae.flows import ConditionalFlow
from svae.latent import Latent


class IBINN(Peer):
    r"""An invertible network with an information bottleneck, on the code of an autoencoder.

    .. math:: L = \frac{2}{1 + \beta} L_x + \frac{2 \beta}{1 + \beta} L_y, \quad
        L_x = -\tfrac{1}{d} \log \sum_k p(T(z) \mid k) |\det T'|, \quad
        L_y = -\log p(y \mid T(z))

    with unit Gaussians around the class means. What the means span is the class part; across
    them T(z) is standard normal, whatever the class. The authors' is on pixels.

    References:
        Training Normalizing Flows with the Information Bottleneck for Competitive Generative
        Classification (Ardizzone et al., 2020), https://arxiv.org/abs/2001.06448

    Args:
        autoencoder: With ``encode`` and ``decode``; it is frozen.
        sizes: What every model is built with.
        n_code: Dims of the code.
        beta: Weight of the class.
        noise: Standard deviation of the noise on codes.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        sizes: Sizes,
        n_code: int,
        beta: float = 1.0,
        noise: float = 0.05,
    ) -> None:
        super().__init__(sizes)
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.beta, self.noise, self.n_code = beta, noise, n_code
        self.flow = ConditionalFlow(n_code, n_blocks=8, hidden=(192, 192), max_log_scale=1.0)
        self.means = nn.Parameter(3 * torch.randn(sizes.n_classes, n_code) / n_code**0.5)

    def train(self, mode: bool = True) -> "IBINN":
        """Training mode of the flow alone."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def code(self, x: Tensor) -> Tensor:
        """The autoencoder's code."""
        return self.autoencoder.encode(x)  # type: ignore[operator]

    def _logits(self, z: Tensor) -> Tensor:
        return -0.5 * torch.cdist(z, self.means).square()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Density and cross-entropy, weighed by beta."""
        code = self.code(x)
        z, log_det = self.flow(code + self.noise * torch.randn_like(code))
        logits = self._logits(z)
        log_share = functional.log_softmax(torch.zeros(len(self.means)), 0)[0]
        density = -((logits + log_share).logsumexp(-1) + log_det).mean() / self.n_code
        label = cross_entropy(logits, y)
        total = 2 / (1 + self.beta) * density + 2 * self.beta / (1 + self.beta) * label
        return total, {"loss": total.detach(), "label": label.detach()}

    def predict(self, x: Tensor) -> Tensor:
        """Log-densities under the Gaussian of each class, but for what all share."""
        return self._logits(self.flow(self.code(x))[0])

    def basis(self) -> tuple[Tensor, Tensor]:
        """Orthonormal columns along the class means, and across them."""
        rows = (self.means - self.means.mean(0)).detach()
        axes = torch.linalg.svd(rows, full_matrices=True)[2].T
        n = min(len(rows) - 1, self.n_code - 1)
        return axes[:, :n], axes[:, n:]

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """T of the code along and across the means; nothing is random in it."""
        z = self.flow(self.code(x))[0]
        along, across = self.basis()
        return Latent(z @ along, (z - self.means.mean(0)) @ across)

    def read(self, latent: Latent) -> Tensor:
        """Log-densities under the Gaussian of each class, but for what all share."""
        along, _ = self.basis()
        return -0.5 * torch.cdist(latent.z_class, self.means @ along).square()

    def decode(self, latent: Latent) -> Tensor:
        """The input of this code."""
        along, across = self.basis()
        middle = self.means.mean(0) @ across
        z = latent.z_class @ along.T + (latent.z_nuisance + middle) @ across.T
        return self.autoencoder.decode(self.flow.inverse(z)[0])  # type: ignore[operator]

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures of draws of the class Gaussians."""
        noise = torch.randn(len(y), self.n_code, generator=generator).to(self.means)
        return self.autoencoder.decode(self.flow.inverse(self.means[y] + noise)[0])  # type: ignore[operator]

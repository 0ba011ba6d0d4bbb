"""Generators without a split latent, for the quality of samples alone."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.peers.common import Gaussian, Peer, Posterior, Sizes, answering, standard_normal
from benchmarks.peers.plain import VAEClassifier
from svae.nets import MLP


class TwoStage(Peer):
    r"""A second VAE of the first one's posterior draws, in place of its prior.

    .. math:: L = -\log \mathcal{N}(z; f(u), \gamma^2 I)
        + \mathrm{KL}(q(u \mid z)\,\|\,\mathcal{N}(0, I))

    References:
        Diagnosing and Enhancing VAE Models (Dai & Wipf, 2019), https://arxiv.org/abs/1903.05789

    Args:
        first: The first VAE, fitted; it is frozen, and its classifier says what was drawn.
        hidden: Width of the hidden layers.
    """

    def __init__(self, first: VAEClassifier, hidden: int = 512) -> None:
        super().__init__(first.sizes)
        n = first.sizes.n_latent
        self.first = first.requires_grad_(False).eval()
        self.trunk = nn.Sequential(MLP([n, hidden, hidden]), nn.SiLU())
        self.posterior = Posterior(hidden, n)
        self.decoder = MLP([n, hidden, hidden, n])
        self.log_gamma = nn.Parameter(torch.zeros(()))

    def train(self, mode: bool = True) -> "TwoStage":
        """Training mode of the second model alone."""
        super().train(mode)
        self.first.eval()
        return self

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The second bound, of a posterior draw of the first."""
        with torch.no_grad():
            z = self.first.posterior(self.first.trunk(x)).draw()
        q = self.posterior(self.trunk(z))
        u = q.draw()
        loc = self.decoder(u)
        seen = Gaussian(loc, self.log_gamma.expand_as(loc)).log_prob(z)
        total = (q.divergence(standard_normal(u)) - seen).mean()
        return total, {"loss": total.detach()}

    def predict(self, x: Tensor) -> Tensor:
        """Logits of the first VAE's classifier."""
        return self.first.predict(x)

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws that the first VAE's classifier answers with the wanted classes."""

        def draw(n: int) -> Tensor:
            shape = n, self.sizes.n_latent
            u, noise = (torch.randn(shape, generator=generator).to(self.log_gamma) for _ in "un")
            z = self.decoder(u) + self.log_gamma.exp() * noise
            return self.first.decoder(z).sigmoid()

        return answering(draw, self.predict, y)


class GAN(Peer):
    r"""A class-conditional generator against a critic with spectral normalisation.

    .. math:: L_G = \mathrm{softplus}(-C(G(u, y), y)), \qquad
        L_C = \mathrm{softplus}(C(G(u, y), y)) + \mathrm{softplus}(-C(x, y))

    Both are minimised at once, each over its own weights.

    References:
        cGANs with Projection Discriminator (Miyato & Koyama, 2018),
        https://arxiv.org/abs/1802.05637

    Args:
        sizes: What every model is built with.
    """

    losses_compare = False

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        if len(sizes.x_shape) != 3:
            raise ValueError(f"the critic looks at pictures, got inputs of {sizes.x_shape}")
        self.generator = sizes.decoder(sizes.n_latent + sizes.n_classes)
        self.critic = Critic(sizes)

    def _made(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = torch.randn(len(y), self.sizes.n_latent, generator=generator).to(y.device)
        return self.generator(torch.cat([u, self.one_hot(y)], -1)).sigmoid()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of both players' losses, whose gradients do not mix."""
        made, label = self._made(y), self.one_hot(y)
        fixed = {name: value.detach() for name, value in self.critic.named_parameters()}
        fooled = functional_call(self.critic, fixed, (made, label))
        of_critic = functional.softplus(self.critic(made.detach(), label)).mean()
        of_critic = of_critic + functional.softplus(-self.critic(x, label)).mean()
        total = functional.softplus(-fooled).mean() + of_critic
        return total, {"loss": total.detach(), "critic": of_critic.detach()}

    def predict(self, x: Tensor) -> Tensor:
        """What the critic says of the input with each class."""
        each = torch.eye(self.sizes.n_classes, device=x.device)
        return torch.stack([self.critic(x, row.expand(len(x), -1)) for row in each], -1)

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures of the classes."""
        return self._made(y, generator)


class Critic(nn.Module):
    """Says whether a picture looks like a real one of its class, as a logit.

    Args:
        sizes: What every model is built with.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        channels, *sides = sizes.x_shape
        layers: list[nn.Module] = []
        for i in range(2):
            n_in, n_out = (channels if i == 0 else sizes.width), sizes.width * (1 + i)
            layers += [spectral_norm(nn.Conv2d(n_in, n_out, 4, 2, 1)), nn.LeakyReLU(0.2)]
        n = 2 * sizes.width * math.prod(side // 4 for side in sides)
        self.net = nn.Sequential(*layers, nn.Flatten(), spectral_norm(nn.Linear(n, 256)))
        self.score = spectral_norm(nn.Linear(256, 1))
        self.of_class = spectral_norm(nn.Linear(sizes.n_classes, 256, bias=False))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        features = functional.leaky_relu(self.net(2 * x - 1), 0.2)
        return self.score(features)[:, 0] + (features * self.of_class(label)).sum(-1)

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from svae.latent import Latent


@dataclass
class ClassMeansAndPCA:
    """A factorization in closed form: the mean of the nearest class plus principal components."""

    means: Tensor
    directions: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, n_nuisance: int) -> "ClassMeansAndPCA":
        means = torch.stack([x[y == k].flatten(1).mean(0) for k in range(int(y.max()) + 1)])
        rest = x.flatten(1) - means[y]
        _, scales, directions = torch.linalg.svd(rest, full_matrices=False)
        scales = scales[:n_nuisance, None] / len(x) ** 0.5
        return cls(means.unflatten(1, x.shape[1:]), scales * directions[:n_nuisance])

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        z_class = torch.nn.functional.one_hot(self.predict(x).argmax(-1), len(self.means)).float()
        rest = (x - torch.tensordot(z_class, self.means, 1)).flatten(1)
        return Latent(z_class, rest @ torch.linalg.pinv(self.directions))

    def decode(self, latent: Latent) -> Tensor:
        rest = latent.z_nuisance @ self.directions
        return torch.tensordot(latent.z_class, self.means, 1) + rest.unflatten(
            1, self.means.shape[1:]
        )

    def predict(self, x: Tensor) -> Tensor:
        return -torch.cdist(x.flatten(1), self.means.flatten(1))

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, *latent.z_nuisance.shape, generator=generator)


def images(n: int, shape: tuple[int, ...], n_classes: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth images in [0, 1]: a bar at the height of its class, under noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % n_classes
    x = 0.3 * torch.rand(n, *shape, generator=generator)
    for i, k in enumerate(y.tolist()):
        x[i, :, 2 * k : 2 * k + 2] += 0.6
    return x, y


Problem = Callable[..., tuple[ClassMeansAndPCA, Tensor, Tensor]]


@pytest.fixture
def problem() -> Problem:
    def build(
        shape: tuple[int, ...] = (1, 8, 8), n: int = 30, n_nuisance: int = 4
    ) -> tuple[ClassMeansAndPCA, Tensor, Tensor]:
        x, y = images(n, shape)
        return ClassMeansAndPCA.fit(x, y, n_nuisance), x, y

    return build

import pytest
import torch
from torch import Tensor

from svae.latent import Latent
from svae.metrics.flips import attribute_share, flips


class Leaky:
    """Two numbers of class and three of nuisance, the first of which reaches the answer."""

    leak = 1.0

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[:, :2], x[:, 2:])

    def decode(self, latent: Latent) -> Tensor:
        return torch.cat([latent.z_class, latent.z_nuisance], 1)

    def predict(self, x: Tensor) -> Tensor:
        score = x[:, 0] + self.leak * x[:, 2]
        return torch.stack([score, -score], 1)

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, len(latent.z_class), 3, generator=generator)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1500, 5, generator=torch.Generator().manual_seed(0))


def test_the_rate_is_that_of_the_closed_form(x: Tensor) -> None:
    found = flips(Leaky(), x, 8, torch.Generator().manual_seed(1))
    # sign(c + u) and sign(c + u') with independent normals differ in arccos(1/2) / pi = 1/3.
    assert float(found.flipped.float().mean()) == pytest.approx(1 / 3, abs=0.02)
    assert found.flipped.shape == (8, 1500)
    assert found.features is None
    assert float(found.cycled.max()) == 0
    before = 2 * (x[:, 0] + x[:, 2]).abs()
    after = torch.where(found.flipped, -1.0, 1.0)
    assert bool(((found.margin + before).sign() == after).all())


def test_dims_are_drawn_one_by_one(x: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    rates = [float(flips(Leaky(), x, 4, generator, [d]).flipped.float().mean()) for d in range(3)]
    assert rates[0] == pytest.approx(1 / 3, abs=0.02)
    assert rates[1:] == [0.0, 0.0]
    one = flips(Leaky(), x, 4, generator, [1]).moved
    every = flips(Leaky(), x, 4, generator).moved
    assert float(one.square().mean() / every.square().mean()) == pytest.approx(1 / 3, abs=0.03)
    # Three of five dims move by as much as two inputs differ.
    assert float(every.square().mean()) == pytest.approx(0.6, abs=0.03)


def test_features_and_the_class_part_have_distances_of_their_own(x: Tensor) -> None:
    class Lossy(Leaky):
        def encode(self, x: Tensor, sample: bool = False) -> Latent:
            return Latent(x[:, :2] + x[:, 3:4], x[:, 2:])

    found = flips(Lossy(), x, 4, features=lambda x: x[:, :2])
    assert found.features is not None
    assert float(found.cycled.mean()) > 0.2
    steady = flips(Leaky(), x, 4, features=lambda x: x[:, :2])
    assert steady.features is not None
    assert float(steady.features.max()) == 0


def test_a_ridge_reads_what_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 6, generator=generator)
    noise = torch.randn(4000, generator=generator)
    values = 3 * z[:, 0] + 4 * noise  # 9 of 25
    halves = (z[:2000], values[:2000]), (z[2000:], values[2000:])
    assert attribute_share(*halves) == pytest.approx(0.36, abs=0.04)
    unrelated = (z[:2000], noise[:2000]), (z[2000:], noise[2000:])
    assert abs(attribute_share(*unrelated)) < 0.02


def test_what_does_not_fit_is_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="at least 2 inputs and 1 draw, got 1 and 8"):
        flips(Leaky(), x[:1])
    with pytest.raises(ValueError, match=r"there are 3 nuisance dims, got \[3\]"):
        flips(Leaky(), x, dims=[3])

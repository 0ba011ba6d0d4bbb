import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from svae.metrics import (
    conditional_coverage,
    conditional_frechet_distance,
    frechet_distance,
    kernel_distance,
    neighbourhood,
)
from svae.metrics.fidelity import _mmd


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(x: Tensor) -> Tensor:
    """Mean exactly 0, covariance exactly the identity."""
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    a, b = whitened(normal(500, 3, 0)), whitened(normal(700, 3, 1))
    scale, shift = torch.tensor([2.0, 0.5, 1.0]).double(), torch.tensor([1.0, 0.0, 3.0]).double()
    # Commuting covariances: |shift|^2 + sum of (scale - 1)^2.
    found = frechet_distance(a, b * scale + shift)
    assert found.value == pytest.approx(10 + 1 + 0.25, rel=1e-9)
    assert found.low < found.value < found.high
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_scipys_square_root() -> None:
    mix_a, mix_b = normal(4, 4, 2), normal(4, 4, 3)
    a, b = normal(300, 4, 0) @ mix_a, normal(300, 4, 1) @ mix_b + 1
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = (a.mean(0) - b.mean(0)).square().sum().item()
    expected += np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet_distance(a, b).value == pytest.approx(expected, rel=1e-6)
    dead = torch.zeros(300, 1, dtype=torch.float64)  # a unit that never fires
    wide = frechet_distance(torch.cat([a, dead], 1), torch.cat([b, dead], 1))
    assert wide.value == pytest.approx(expected, rel=1e-6)


def test_frechet_interval_has_the_width_of_repetitions() -> None:
    found = [
        frechet_distance(normal(400, 3, 2 * i), normal(400, 3, 2 * i + 1) + 1) for i in range(60)
    ]
    actual = torch.tensor([e.value for e in found]).std().item()
    reported = torch.tensor([(e.high - e.low) / 3.92 for e in found]).mean().item()
    assert reported == pytest.approx(actual, rel=0.35)


def test_kernel_distance_is_unbiased_and_its_interval_holds() -> None:
    found = [
        kernel_distance(normal(300, 4, 2 * i), normal(300, 4, 2 * i + 1), n_subsets=20, size=100)
        for i in range(60)
    ]
    values = torch.tensor([e.value for e in found])
    assert values.mean().abs() < 3 * values.std() / math.sqrt(60)
    assert (values < 0).any()
    assert sum(e.low < 0 < e.high for e in found) > 50


def test_kernel_distance_in_closed_form() -> None:
    # k(u, v) = (u v + 1)^3 in one dim: the squared differences of the first three moments.
    shift = 0.5
    expected = 3 * shift**2 + 3 * (shift**2) ** 2 + (3 * shift + shift**3) ** 2
    found = [
        kernel_distance(normal(400, 1, 2 * i), normal(400, 1, 2 * i + 1) + shift, 30, size=100)
        for i in range(100)
    ]
    values = torch.tensor([e.value for e in found])
    assert (values.mean() - expected).abs() < 3 * values.std() / 10
    assert values.std() < 0.5 * expected
    assert sum(e.low < expected < e.high for e in found) > 82
    reported = torch.tensor([(e.high - e.low) / 3.92 for e in found]).mean()
    assert reported == pytest.approx(values.std().item(), rel=0.3)


def test_kernel_distance_is_the_definition() -> None:
    a, b = normal(100, 3, 0), normal(100, 3, 1)

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / 3 + 1) ** 3

    unlike = ~torch.eye(100, dtype=torch.bool)
    expected = kernel(a, a)[unlike].mean() + kernel(b, b)[unlike].mean() - 2 * kernel(a, b).mean()
    assert _mmd(a, b).item() == pytest.approx(expected.item(), rel=1e-9)


def test_identical_sets_agree_and_far_sets_do_not() -> None:
    a = normal(1500, 4, 0)  # more than one chunk
    same = neighbourhood(a, a.clone())
    assert (same.precision.value, same.recall.value, same.coverage.value) == (1, 1, 1)
    far = neighbourhood(a, a + 100)
    assert [estimate.value for estimate in far] == [0, 0, 0, 0]
    y = torch.arange(1500) % 3
    assert conditional_coverage(a, y, a, y).value == 1
    assert conditional_coverage(a, y, a + 100, y).value == 0


def test_one_distribution_has_its_known_values() -> None:
    found = neighbourhood(normal(3000, 3, 0), normal(3000, 3, 1))
    assert found.coverage.value == pytest.approx(1 - 2**-5, abs=0.01)
    assert found.density.value == pytest.approx(1, abs=0.05)
    assert found.density.low < 1 < found.density.high
    assert found.precision.value > 0.95
    assert found.recall.value > 0.95


def brute(real: Tensor, fake: Tensor, k: int) -> list[float]:
    """The definitions, one loop for each quantifier."""

    def radius(i: int, x: Tensor) -> float:
        others = torch.cat([x[:i], x[i + 1 :]])
        return (others - x[i]).norm(dim=1).sort().values[k - 1].item()

    def near(u: Tensor, v: Tensor) -> float:
        return (u - v).norm().item()

    of_real = [radius(i, real) for i in range(len(real))]
    of_fake = [radius(i, fake) for i in range(len(fake))]
    inside = [[near(g, r) < of_real[i] for i, r in enumerate(real)] for g in fake]
    return [
        sum(any(row) for row in inside) / len(fake),
        sum(any(near(r, g) < of_fake[j] for j, g in enumerate(fake)) for r in real) / len(real),
        sum(sum(row) for row in inside) / (k * len(fake)),
        sum(any(row[i] for row in inside) for i in range(len(real))) / len(real),
    ]


@pytest.mark.parametrize("k", [1, 3])
def test_neighbourhood_is_the_definition(k: int) -> None:
    real, fake = normal(40, 2, 0), 1.3 * normal(25, 2, 1) + 0.5
    found = [estimate.value for estimate in neighbourhood(real, fake, k)]
    assert found == pytest.approx(brute(real, fake, k))


def test_the_radius_excludes_self_and_is_strict() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0]])
    # With k = 1 the radii are 1, 1 and 2; the fake at 2 is at distance 1 of 1 and of 3.
    found = neighbourhood(real, torch.tensor([[2.0], [2.0]]), k=1)
    assert found.coverage.value == pytest.approx(1 / 3)
    assert found.density.value == 1


def test_conditional_coverage_is_by_class() -> None:
    a = torch.cat([normal(50, 2, 0), normal(100, 2, 1) + 100])
    y = (torch.arange(150) >= 50).long()
    # The fakes of class 1 are right, those of class 0 are near to class 1.
    fake = torch.cat([a[50:100], a[50:]])
    assert conditional_coverage(a, y, fake, y).value == pytest.approx(100 / 150)
    assert neighbourhood(a, fake).coverage.value == pytest.approx(100 / 150)
    # Labels exchanged: as a set the fakes are perfect, by class they are all wrong.
    assert conditional_coverage(a, y, a, 1 - y).value == 0
    assert neighbourhood(a, a).coverage.value == 1
    # A class without any fake is not covered.
    assert conditional_coverage(a, y, a[:50], y[:50]).value == pytest.approx(50 / 150)


def test_a_collapsed_nuisance_has_low_coverage() -> None:
    real = normal(1000, 3, 0)
    y = torch.zeros(1000, dtype=torch.long)
    assert conditional_coverage(real, y, 0.2 * normal(1000, 3, 1), y).value < 0.2


def test_errors() -> None:
    a, y = torch.zeros(30, 2), torch.zeros(30).long()
    with pytest.raises(ValueError, match="one width; got 2 and 3"):
        frechet_distance(a, torch.zeros(30, 3))
    with pytest.raises(ValueError, match="at least 20 rows in each set; got 30 and 5"):
        frechet_distance(a, a[:5])
    with pytest.raises(ValueError, match="n_subsets >= 2 and size >= 2; got 1 and 1000"):
        kernel_distance(a, a, n_subsets=1)
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        neighbourhood(a, a, k=0)
    with pytest.raises(ValueError, match="at least 6 rows in each set; got 30 and 5"):
        neighbourhood(a, a[:5])
    with pytest.raises(ValueError, match=r"class 0 has 5 real examples.* needs 6"):
        conditional_coverage(a[:5], y[:5], a, y)
    with pytest.raises(ValueError, match="got 30 rows and 5 labels"):
        conditional_coverage(a, y[:5], a, y)


def test_conditional_fid_sees_a_sample_of_the_wrong_class() -> None:
    y = torch.arange(4000) % 2
    real = torch.randn(4000, 3) + 4 * y[:, None]
    good = torch.randn(4000, 3) + 4 * y[:, None]
    swapped = torch.randn(4000, 3) + 4 * (1 - y)[:, None]
    found = conditional_frechet_distance(real, y, good, y)
    assert found.value < 0.05
    wrong = conditional_frechet_distance(real, y, swapped, y)
    # Each class is where the other belongs: 4 in each of three dims.
    assert wrong.low < 3 * 4**2 < wrong.high
    assert frechet_distance(real, swapped).value < 0.1
    classes = [frechet_distance(real[y == k], good[y == k]).value for k in (0, 1)]
    assert found.value == pytest.approx(sum(classes) / 2)
    with pytest.raises(ValueError, match="20"):
        conditional_frechet_distance(real[:30], y[:30], good[:30], y[:30])

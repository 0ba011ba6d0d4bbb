import math

import pytest
import torch

from svae.factorization import Factorization
from svae.metrics import (
    diversity_ratio,
    feature_diversity_ratio,
    preservation,
    preservation_swapped,
    reconstruction_preservation,
    switch_rate,
)
from svae.metrics.invariance import _partners
from tests.metrics.halves import Halves, judge, pictures


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def above(u: float) -> float:
    """Upper tail of the standard normal."""
    return 0.5 * math.erfc(u / math.sqrt(2))


def test_a_perfect_factorization() -> None:
    x, y = pictures(2500)  # more than one chunk
    perfect = Halves()
    assert isinstance(perfect, Factorization)
    for found in (
        preservation(perfect, x, judge, generator=seeded()),
        preservation_swapped(perfect, x, judge, generator=seeded()),
        reconstruction_preservation(perfect, x, judge),
        switch_rate(perfect, x, y, judge, generator=seeded()),
    ):
        assert found.value == 1
        assert 0.998 < found.low < 1
    assert diversity_ratio(perfect, x, y, generator=seeded()).value == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_preservation_is_the_known_share(threshold: float) -> None:
    x, _ = pictures(4000)
    found = preservation(Halves(flips_above=threshold), x, judge, n=8, generator=seeded())
    assert found.low < 1 - above(threshold) < found.high
    assert found.high - found.low < 0.015
    swapped = preservation_swapped(Halves(flips_above=threshold), x, judge, seeded())
    assert swapped.value == pytest.approx(1 - above(threshold), abs=0.03)


def test_the_judges_own_decision_on_x_is_the_reference() -> None:
    x, y = pictures(200)
    mistaken = lambda images: -judge(images)  # noqa: E731
    assert preservation(Halves(), x, mistaken, generator=seeded()).value == 1
    assert reconstruction_preservation(Halves(), x, mistaken).value == 1
    assert switch_rate(Halves(), x, y, mistaken, seeded()).value == 0


def test_a_class_in_the_nuisance_is_found() -> None:
    x, y = pictures(3000)
    wrong = Halves(reads_nuisance=True)
    assert reconstruction_preservation(wrong, x, judge).value == 1
    assert preservation(wrong, x, judge, generator=seeded()).value == pytest.approx(0.5, abs=0.02)
    assert preservation_swapped(wrong, x, judge, seeded()).value == pytest.approx(0.5, abs=0.05)
    assert switch_rate(wrong, x, y, judge, seeded()).value == 0


def test_swapping_uses_every_other_nuisance_once_and_never_the_own() -> None:
    seen: list[torch.Tensor] = []

    class Recorder(Halves):
        def decode(self, latent):  # noqa: ANN001, ANN202
            seen.append(latent.z_nuisance[:, 0])
            return super().decode(latent)

    x, _ = pictures(51)
    preservation_swapped(Recorder(), x, judge, seeded())
    own, taken = Halves().encode(x).z_nuisance[:, 0], torch.cat(seen)
    assert torch.equal(own.sort().values, taken.sort().values)
    assert not (own == taken).any()


def test_partners_are_uniform_over_other_classes() -> None:
    y = torch.tensor([2, 0, 1, 0, 2, 2])
    counts = torch.zeros(6, 6)
    for seed in range(600):
        counts[torch.arange(6), _partners(y, seeded(seed))] += 1
    other = (y[:, None] != y).float()
    expected = 600 * other / other.sum(1, keepdim=True)
    assert (counts[other == 0] == 0).all()
    assert ((counts - expected).abs() < 4 * expected.sqrt() + 1e-6).all()


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_diversity_is_the_known_spread(spread: float) -> None:
    x, y = pictures(3000)
    found = diversity_ratio(Halves(spread), x, y, n=8, generator=seeded())
    assert found.value == pytest.approx(spread, abs=0.02)
    assert found.low <= spread <= found.high or found.value == pytest.approx(spread, abs=1e-6)
    featured = feature_diversity_ratio(
        Halves(spread), x, y, lambda images: images.flatten(1), n=8, generator=seeded()
    )
    assert featured.value == pytest.approx(spread, abs=0.03)


def test_diversity_by_hand_on_unequal_classes() -> None:
    class Alternating(Halves):
        """Draws are alternately one above and one below."""

        def sample_nuisance(self, latent, n, generator=None):  # noqa: ANN001, ANN202
            signs = 1 - 2 * (torch.arange(n) % 2).float()
            return signs[:, None, None].expand(n, len(latent.z_class), 2)

    x, y = pictures(6)
    x, y = x[[0, 1, 2, 3, 4]], y[[0, 1, 2, 3, 4]]  # three of one class, two of the other
    # Two of four pixels vary, by .1 up and down: variance .01 * 2 / (2 - 1).
    top = 0.5 * 0.02
    variances = [x[y == label].flatten(1).var(0).mean() for label in (0, 1)]
    bottom = (3 * variances[0] + 2 * variances[1]) / 5
    found = diversity_ratio(Alternating(), x, y, n=2)
    assert found.value == pytest.approx(math.sqrt(top / bottom), rel=1e-5)
    # Features: the distance of the two draws is .2 in two pixels.
    flat = x.flatten(1)
    pairs = [(0, 2), (0, 4), (2, 4)]
    first = sum((flat[i] - flat[j]).norm() for i, j in pairs) / 3
    real = (3 * first + 2 * (flat[1] - flat[3]).norm()) / 5
    featured = feature_diversity_ratio(Alternating(), x, y, lambda u: u.flatten(1), n=2)
    assert featured.value == pytest.approx(float(0.2 * math.sqrt(2) / real), rel=1e-5)


def test_no_gradients_and_same_seed_same_number() -> None:
    x, _ = pictures(100)
    x.requires_grad_(True)
    first, again = (
        preservation(Halves(flips_above=0.5), x, judge, generator=seeded(3)) for _ in range(2)
    )
    assert first == again
    assert x.grad is None


def test_errors() -> None:
    x, y = pictures(4)
    with pytest.raises(ValueError, match="n >= 1 draws per image; got 0"):
        preservation(Halves(), x, judge, n=0)
    with pytest.raises(ValueError, match="n >= 2 draws per image; got 1"):
        diversity_ratio(Halves(), x, y, n=1)
    with pytest.raises(ValueError, match="at least 2 images; got 1"):
        preservation_swapped(Halves(), x[:1], judge)
    with pytest.raises(ValueError, match="at least 2 classes; all labels are 0"):
        switch_rate(Halves(), x[::2], y[::2], judge)
    with pytest.raises(ValueError, match="4 images, 2 labels"):
        switch_rate(Halves(), x, y[:2], judge)
    with pytest.raises(ValueError, match=r"at least 2 images of each.*\[2, 1\]"):
        diversity_ratio(Halves(), x[:3], y[:3])
    with pytest.raises(ValueError, match="all equal"):
        diversity_ratio(Halves(), x[[0, 0, 1, 1]], y[[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="empty batch"):
        reconstruction_preservation(Halves(), x[:0], judge)

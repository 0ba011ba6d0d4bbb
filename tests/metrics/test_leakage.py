from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from svae.metrics.leakage import _linear, _standardised, leakage, permutation_null

Codes = tuple[Tensor, Tensor]


def three(make: Callable[[int, torch.Generator], Codes]) -> tuple[Codes, Codes, Codes]:
    """Training, validation and test codes of one kind."""
    train, validation, test = (
        make(n, torch.Generator().manual_seed(seed)) for seed, n in enumerate((2500, 800, 2000))
    )
    return train, validation, test


def first(n: int, sets: tuple[Codes, Codes, Codes]) -> tuple[Codes, Codes, Codes]:
    """The first codes of every set."""
    train, validation, test = ((z[:n], y[:n]) for z, y in sets)
    return train, validation, test


def noise(n: int, generator: torch.Generator) -> Codes:
    return torch.randn(n, 6, generator=generator), torch.randint(5, (n,), generator=generator)


def planted(n: int, generator: torch.Generator) -> Codes:
    """Six tenths of the codes name their class, the others a random one of five: .68 at best."""
    z, y = noise(n, generator)
    named = torch.where(torch.rand(n, generator=generator) < 0.6, y, y.roll(1))
    return torch.cat([z[:, :2], 8.0 * torch.nn.functional.one_hot(named)], 1), y


def exclusive_or(n: int, generator: torch.Generator) -> Codes:
    """The class is the sign of a product: no dim alone knows anything, nor any sum."""
    z = torch.randn(n, 3, generator=generator)
    return z, (z[:, 0] * z[:, 1] > 0).long()


def test_a_planted_leak_is_found_at_its_accuracy() -> None:
    found = leakage(*three(planted))
    for name in ("linear", "mlp", "strongest"):
        assert found[name].value == pytest.approx(0.68, abs=0.03), name
    assert found["strongest"].low < 0.68 < found["strongest"].high + 0.01
    assert found["strongest"].value == max(found[n].value for n in ("linear", "mlp", "knn"))
    assert found["knn"].value > 0.6


def test_noise_is_at_chance_and_within_its_null() -> None:
    sets = three(noise)
    found, null = leakage(*sets), permutation_null(*sets, n=5)
    for name in ("linear", "mlp", "knn"):
        assert found[name].low < 0.2 < found[name].high, name
    assert null.low < found["linear"].value < null.high
    assert null.value == pytest.approx(0.2, abs=0.02)
    assert 0.001 < null.high - null.low < 0.1
    y = sets[2][1]
    assert found["chance"].value == pytest.approx(y.bincount().max().item() / len(y))
    assert found["strongest"].value < found["chance"].value + 0.03


def test_a_planted_leak_exceeds_its_null() -> None:
    null = permutation_null(*three(planted))
    assert null.high < 0.3
    assert null.value == pytest.approx(0.2, abs=0.02)


def test_what_a_linear_probe_cannot_read_is_read() -> None:
    found = leakage(*three(exclusive_or))
    assert found["linear"].value == pytest.approx(0.5, abs=0.05)
    assert found["mlp"].value > 0.95
    assert found["knn"].value > 0.85
    assert found["strongest"] == found["mlp"]


def test_collapsed_but_offset_dims_are_read() -> None:
    """Codes that differ by a hundred-thousandth beside an offset, and others a million wide."""

    def collapsed(n: int, generator: torch.Generator) -> Codes:
        z, y = noise(n, generator)
        return torch.cat([1e6 * z, 5 + 1e-5 * y[:, None], torch.full((n, 1), 7.0)], 1), y

    found = leakage(*three(collapsed))
    assert found["linear"].value > 0.99
    assert found["mlp"].value > 0.99
    assert found["knn"].value > 0.6


def test_rotated_codes_leak_the_same() -> None:
    rotation = torch.linalg.qr(torch.randn(7, 7))[0]
    sets = three(planted)
    turned = [(z @ rotation, y) for z, y in sets]
    found = []
    for train, validation, test in (_standardised(*sets), _standardised(*turned)):
        found.append((_linear(train, validation, test[0]) == test[1]).float().mean().item())
    assert found[0] == pytest.approx(0.68, abs=0.03)
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_same_seed_same_numbers_and_the_global_generator_is_left_alone() -> None:
    sets = first(500, three(planted))
    state = torch.get_rng_state()
    found = leakage(*sets, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert leakage(*sets, seed=3) == found


def test_selection_and_fit_never_see_the_test_set() -> None:
    train, validation, test = first(500, three(planted))
    shuffled = test[0], test[1][torch.randperm(500)]
    found = leakage(train, validation, shuffled)
    assert found["strongest"].value < 0.3
    # A class that only the test set has cannot be predicted, and is no error.
    assert leakage(train, validation, (test[0], torch.full((500,), 7)))["strongest"].value == 0


def test_errors() -> None:
    z, y = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"validation set has codes of shape \(4, 3\).*width 2"):
        leakage((z, y), (torch.zeros(4, 3), y), (z, y))
    with pytest.raises(ValueError, match=r"test set has codes .* and 3 labels"):
        leakage((z, y), (z, y), (z, y[:3]))
    with pytest.raises(ValueError, match="train codes hold NaN"):
        leakage((z / 0, y), (z, y), (z, y))
    with pytest.raises(ValueError, match="train labels hold -1"):
        leakage((z, y - 1), (z, y), (z, y))
    with pytest.raises(ValueError, match="n >= 2 shuffles; got 1"):
        permutation_null((z, y), (z, y), (z, y), n=1)

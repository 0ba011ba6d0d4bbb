"""Attacks against networks of which the worst change is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import svae
from svae.attacks import fgsm, pgd, random_signs


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 2)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_of_a_linear_network_the_worst_change_is_found(attack: Callable[..., Tensor]) -> None:
    net = linear()
    x, y = torch.full((4, 6), 0.5), torch.tensor([0, 1, 0, 1])
    found = attack(net, x, y, 0.1)
    # The logit of the other class minus that of y rises fastest along the sign of its weights.
    other = net.weight[1 - y] - net.weight[y]
    assert torch.allclose(found, x + 0.1 * other.sign(), atol=1e-6)


def test_changes_stay_within_their_size_and_the_range() -> None:
    net = linear()
    x, y = torch.rand(50, 6), torch.arange(50) % 2
    for found in (fgsm(net, x, y, 0.2), pgd(net, x, y, 0.2, 5), random_signs(x, 0.2)):
        assert float((found - x).abs().max()) <= 0.2 + 1e-6
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
    apart = random_signs(torch.full((100, 6), 0.5), 0.2) - 0.5
    assert torch.allclose(apart.abs(), torch.full((100, 6), 0.2))
    assert abs(float(apart.mean())) < 0.05


def test_many_steps_find_what_one_does_not() -> None:
    def wavy(x: Tensor) -> Tensor:  # its gradient at x points the wrong way
        z = x[:, 0] - 0.5
        worst = 5 * torch.exp(-((z + 0.18) ** 2) / 0.002) + 0.5 * torch.tanh(z)
        return torch.stack([-worst, worst], 1)

    x, y = torch.full((20, 1), 0.5), torch.zeros(20, dtype=torch.int64)
    one = fgsm(wavy, x, y, 0.2)
    many = pgd(wavy, x, y, 0.2, 40, torch.Generator().manual_seed(0))
    assert float(wavy(many)[:, 1].max()) > 4 > float(wavy(one)[:, 1].max())


def test_a_frozen_network_is_attacked_and_unchanged() -> None:
    frozen = svae.Frozen(nn.Sequential(linear()), "0", x_shape=(6,))
    before = frozen.fingerprint
    x = torch.rand(5, 6)
    with torch.no_grad():
        answers = frozen.predict(x).argmax(1)
        moved = pgd(frozen.predict, x, answers, 0.5)
    assert not moved.requires_grad
    assert bool((frozen.predict(moved).argmax(1) != answers).any())
    assert frozen.fingerprint == before


def test_wrong_numbers_and_black_boxes_are_refused() -> None:
    x, y = torch.rand(2, 6), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="size must be at least 0, got -1"):
        fgsm(linear(), x, y, -1.0)
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        pgd(linear(), x, y, n_steps=0)
    with pytest.raises(ValueError, match="no gradient of the answer reaches the input"):
        fgsm(lambda x: torch.ones(len(x), 2), x, y)

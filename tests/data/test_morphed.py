import pytest
import torch
from torch import Tensor
from torch.nn import functional

import svae
from svae.data.coloured import read_colour
from svae.data.morphed import FACTORS, MorphedDigits, morph


def still(n: int = 1) -> Tensor:
    factors = torch.zeros(n, 7)
    factors[:, 3:] = 1
    return factors


def test_nothing_moves_where_the_factors_are_neutral() -> None:
    grey = torch.rand(4, 1, 16, 12)
    assert torch.allclose(morph(grey, still(4)), grey.expand(-1, 3, -1, -1), atol=1e-5)


@pytest.mark.parametrize(("name", "shift"), [("shift_x", (0, 2)), ("shift_y", (2, 0))])
def test_shifts_are_pixels_to_the_right_and_down(name: str, shift: tuple[int, int]) -> None:
    grey = functional.pad(torch.rand(1, 1, 8, 8), [4, 4, 4, 4])
    factors = still()
    factors[0, FACTORS.index(name)] = 2
    wanted = grey.roll(shift, (2, 3))
    assert torch.allclose(morph(grey, factors)[:, :1], wanted, atol=1e-5)


def test_turns_are_degrees_counter_clockwise() -> None:
    grey = torch.rand(1, 1, 9, 9)
    factors = still()
    factors[0, 0] = 90
    assert torch.allclose(morph(grey, factors)[:, :1], torch.rot90(grey, 1, (2, 3)), atol=1e-4)


def test_brightness_and_colour_multiply() -> None:
    grey = torch.rand(1, 1, 8, 8)
    factors = still()
    factors[0, 3:] = torch.tensor([0.5, 1.0, 0.2, 0.6])
    wanted = grey * torch.tensor([0.5, 0.1, 0.3]).view(1, 3, 1, 1)
    assert torch.allclose(morph(grey, factors), wanted, atol=1e-6)


def test_every_picture_has_factors_of_its_own() -> None:
    data = MorphedDigits(svae.data.Digits())
    assert data.x_shape == (3, 16, 16)
    factors = data.train.factors
    assert factors is not None
    assert torch.equal(factors[:, 4:].amax(1), torch.ones(len(factors)))
    assert 30 < float(factors[:, 0].abs().max()) <= 40
    correlation = torch.corrcoef(torch.cat([factors, data.train.marked[:, None]], 1).T)
    assert float((correlation - torch.eye(8))[:4].abs().max()) < 0.1
    # The brightest of 1 a digit has is that of its interpolated pixels.
    colour = read_colour(data.train.floats())
    hue = colour / colour.amax(1, keepdim=True)
    assert float((hue - factors[:, 4:]).abs().mean()) < 0.02
    again = MorphedDigits(svae.data.Digits())
    assert torch.equal(again.train.x, data.train.x)
    assert not torch.equal(MorphedDigits(svae.data.Digits(), seed=1).test.x, data.test.x)
    more = MorphedDigits(svae.data.Digits(), copies=2)
    n = len(data.train)
    assert len(more.train) == 2 * n
    assert torch.equal(more.train.marked[:n], more.train.marked[n:])
    assert not torch.equal(more.train.x[:n], more.train.x[n:])


def test_coloured_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 16, 16\), expected grey ones"):
        MorphedDigits(MorphedDigits(svae.data.Digits()))
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        MorphedDigits(svae.data.Digits(), copies=0)

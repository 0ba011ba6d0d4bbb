import math
from functools import partial

import pytest
import torch
from torch import Tensor

from svae.data import RandomAffine
from svae.data.augment import affine

X = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def moved(x: Tensor, angle: float = 0, right: float = 0, down: float = 0, scale: float = 1,
          shear: float = 0) -> Tensor:  # fmt: skip
    def each(value: float) -> Tensor:
        return torch.full((len(x),), float(value))

    shift = torch.tensor([right, down], dtype=torch.float32).expand(len(x), 2)
    return affine(x, each(angle), shift, each(scale), each(shear))


def test_nothing_asked_nothing_changed() -> None:
    torch.testing.assert_close(moved(X), X, atol=1e-5, rtol=0)
    still = RandomAffine(degrees=0.0, translate=0.0, scale=(1.0, 1.0), shear=0.0)
    torch.testing.assert_close(still(X), X, atol=1e-5, rtol=0)


def test_known_moves() -> None:
    close = partial(torch.testing.assert_close, atol=1e-4, rtol=0.0)
    close(moved(X, angle=90), torch.rot90(X, 1, [2, 3]))
    close(moved(X, right=1 / 4)[..., 2:], X[..., :-2])
    close(moved(X, down=1 / 8)[..., 1:, :], X[..., :-1, :])
    assert moved(X, right=1 / 4)[..., :2].abs().max() < 1e-4  # zeros come in
    wide = X[..., :6, :]
    close(moved(wide, angle=180), wide.flip(2, 3))


def test_rotation_keeps_shapes_in_wide_images() -> None:
    # A dot 6 pixels right of the centre is 6 pixels above it after a quarter turn.
    x = torch.zeros(1, 1, 17, 33)
    x[0, 0, 8, 16 + 6] = 1
    turned = moved(x, angle=90)[0, 0]
    assert turned.argmax().item() == (8 - 6) * 33 + 16


def test_scale_and_shear_move_a_dot_as_the_formula_says() -> None:
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 16 + 4, 16 + 2] = 1  # p = (2, 4): right, down
    grown = moved(x, scale=2)[0, 0]
    assert grown.argmax().item() == (16 + 8) * 33 + 16 + 4
    sheared = moved(x, shear=math.degrees(math.atan(0.5)))[0, 0]  # x + y / 2
    assert sheared.argmax().item() == (16 + 4) * 33 + 16 + 4
    both = moved(x, angle=90, scale=2)[0, 0]  # (y, -x), doubled
    assert both.argmax().item() == (16 - 4) * 33 + 16 + 8


def test_every_image_has_its_own_amounts_within_bounds() -> None:
    same = X[:1].expand(64, -1, -1, -1)
    out = RandomAffine(degrees=30.0)(same)
    assert out.flatten(1).unique(dim=0).shape[0] == 64
    assert out.min() >= 0
    assert out.max() <= 1
    dot = torch.zeros(500, 1, 41, 41)
    dot[:, 0, 20, 20] = 1
    out = RandomAffine(degrees=0.0, translate=0.2, scale=(1.0, 1.0), shear=0.0)(dot)
    columns = (out.sum(2)[:, 0] * torch.arange(-20, 21)).sum(1) / 41
    assert -0.2 <= columns.min() < -0.18
    assert 0.18 < columns.max() <= 0.2


def test_generator_decides() -> None:
    a, b = (RandomAffine(generator=torch.Generator().manual_seed(4))(X) for _ in range(2))
    c = RandomAffine(generator=torch.Generator().manual_seed(5))(X)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    torch.manual_seed(1)
    first = RandomAffine()(X)
    torch.manual_seed(1)
    assert torch.equal(RandomAffine()(X), first)


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match=r"degrees is -1\.0, expected 0 or more"):
        RandomAffine(degrees=-1.0)
    with pytest.raises(ValueError, match=r"shear is 90\.0 degrees, expected less than 90"):
        RandomAffine(shear=90.0)
    with pytest.raises(ValueError, match=r"scale is \(1.1, 0.9\), expected \(smallest, largest\)"):
        RandomAffine(scale=(1.1, 0.9))

import math

import pytest
import torch
from torch import Tensor

from svae.sketches import (
    Brightness,
    Contrast,
    Hue,
    Rotation,
    Saturation,
    Shift,
    Size,
    looks,
)
from svae.sketches.operators import Operator


def rectangle(width: int = 12, height: int = 6, channels: int = 3) -> Tensor:
    x = torch.zeros(2, channels, 32, 32)
    top, left = (32 - height) // 2, (32 - width) // 2
    x[..., top : top + height, left : left + width] = 0.8
    return x


def test_a_rectangle_is_as_large_as_it_is() -> None:
    x = rectangle(12, 6)
    assert looks.size(x)[0].tolist() == pytest.approx([12.0, 12.0], abs=1e-4)
    assert looks.size(x)[1].tolist() == pytest.approx([6.0, 6.0], abs=1e-4)
    assert looks.area(x).tolist() == [72.0, 72.0]
    assert looks.centre(x)[0].tolist() == pytest.approx([15.5, 15.5])
    assert looks.brightness(x).tolist() == pytest.approx([0.8, 0.8])
    p = 72 / 1024
    wanted = 0.8 * math.sqrt(p * (1 - p) * 1024 / 1023)
    assert looks.contrast(x).tolist() == pytest.approx([wanted, wanted], rel=1e-4)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, -45.0])
def test_a_turned_bar_has_the_angle_it_was_turned_by(angle: float) -> None:
    axis = looks.orientation(Rotation(angle)(rectangle(20, 4)))[0]
    found = math.degrees(math.atan2(float(axis[1]), float(axis[0]))) / 2
    assert math.sin(math.radians(2 * (found - angle))) == pytest.approx(0.0, abs=0.03)
    assert math.cos(math.radians(2 * (found - angle))) > 0.99
    assert 0.85 < float(axis.norm()) < 1


def test_a_shift_moves_the_centre_and_a_size_the_size() -> None:
    columns, rows = looks.centre(Shift(right=3.0, down=-2.5)(rectangle()))
    assert columns.tolist() == pytest.approx([18.5, 18.5], abs=1e-3)
    assert rows.tolist() == pytest.approx([13.0, 13.0], abs=1e-3)
    moved = Shift(right=5.0, down=4.0)(rectangle())
    width, height = looks.size(Size(width=0.5, height=1.5)(moved))
    assert width.tolist() == pytest.approx([6.0, 6.0], rel=0.05)
    assert height.tolist() == pytest.approx([9.0, 9.0], rel=0.05)
    for operator in (Size(width=0.5, height=1.5), Rotation(70.0)):  # about the object's centre
        assert looks.centre(operator(moved))[0].tolist() == pytest.approx([20.5, 20.5], abs=0.1)


@pytest.mark.parametrize(
    "operator",
    [Rotation(), Shift(), Size(), Brightness(), Contrast(), Hue(), Saturation()],
    ids=lambda operator: type(operator).__name__,
)
def test_a_neutral_amount_changes_nothing(operator: Operator) -> None:
    x = 0.9 * torch.rand(3, 3, 17, 12)
    assert torch.allclose(operator(x), x, atol=2e-3)
    assert operator(x[:0]).shape == (0, 3, 17, 12)


def test_tones_change_what_they_say() -> None:
    x = rectangle() * torch.tensor([1.0, 0.5, 0.5])[:, None, None]
    assert torch.allclose(Brightness(0.5)(x), x / 2)
    assert torch.allclose(looks.contrast(Contrast(0.5)(x)), looks.contrast(x) / 2)
    assert torch.allclose(Contrast(0.5)(x).mean(), x.mean())
    assert looks.saturation(x).tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert float(looks.saturation(Saturation(0.0)(x)).max()) < 1e-3
    first, turned = looks.hue(x)[0], looks.hue(Hue(120.0)(x))[0]
    angle = [math.degrees(math.atan2(float(p[1]), float(p[0]))) for p in (first, turned)]
    assert angle == pytest.approx([0.0, 120.0], abs=0.5)


def test_every_measure_takes_every_picture() -> None:
    for x in (
        rectangle(),
        torch.zeros(2, 3, 9, 8),
        torch.ones(2, 3, 9, 8),
        torch.rand(2, 3, 9, 8),
    ):
        for name, measure in looks.measures_for(x.shape[1:]).items():
            found = measure(x)
            assert found.shape[0] == 2, name
            assert found.ndim == 2, name
            assert bool(found.isfinite().all()), name
    grey = looks.measures_for((1, 9, 8))
    assert "hue" not in grey
    row = torch.randn(4, 5)
    assert torch.equal(looks.measures_for((5,))["feature 2"](row), row[:, 2:3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotation(math.inf), "expected degrees"),
        (lambda: Shift(right=math.nan), "expected pixels"),
        (lambda: Size(width=0.0), "factors of more than 0"),
        (lambda: Brightness(-1.0), "brightness is -1.0, expected a factor"),
        (lambda: Hue(200.0), "-180 to 180"),
        (lambda: Hue(20.0)(torch.rand(1, 1, 8, 8)), "1 channels, expected red"),
        (lambda: looks.hue(torch.rand(1, 1, 8, 8)), "1 channels, expected red"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # pyright: ignore

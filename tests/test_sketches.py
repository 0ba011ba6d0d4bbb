"""Operators do what they say, by known answers, and leave alone what they do not name."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from svae.data.coloured import decoloured
from svae.data.idx import read
from svae.saving import describe, rebuild
from svae.sketches import (
    Blur,
    Colour,
    CornerRounding,
    Joint,
    Operator,
    Sketch,
    Slant,
    Thickness,
    blur,
    colour,
    sketch_from_images,
    slant,
    thickness,
)
from tests.unchecked import as_a_user

Measure = Callable[[Tensor], Tensor]


def bar(width: float = 3.0, angle: float = 0.0, length: float = 20.0, size: int = 32) -> Tensor:
    """One anti-aliased bar, sheared so that it leans to the right by an angle."""
    at = (torch.arange(8 * size) + 0.5) / 8 - size / 2
    rows, columns = at[:, None], at
    leaning = columns + math.tan(math.radians(angle)) * rows
    fine = (rows.abs() < length / 2) & (leaning.abs() < width / 2)
    return torch.nn.functional.avg_pool2d(fine.float()[None, None], 8)


def ell() -> Tensor:
    """Two strokes that meet at a right angle."""
    x = torch.zeros(1, 1, 28, 28)
    x[..., 4:24, 6:10] = 1
    x[..., 20:24, 6:22] = 1
    return x


SHAPES = torch.cat([bar(3.0), bar(2.2, 20.0), bar(5.0, -10.0), torch.zeros(1, 1, 32, 32)])

# A neutral value, then rising ones; what rises with them.
LADDERS = [
    ([Thickness(v) for v in (0.5, 0.75, 1.0, 1.3, 2.0)], thickness),
    ([Thickness(v, absolute=True) for v in (1.5, 2.5, 4.0, 6.0)], thickness),
    ([Slant(v) for v in (-40.0, -10.0, 0.0, 10.0, 40.0)], slant),
    ([Slant(v, absolute=True) for v in (-30.0, 0.0, 30.0)], slant),
    ([Blur(v) for v in (0.0, 0.3, 0.6, 1.0, 1.5)], blur),
    ([Blur(v, absolute=True) for v in (0.6, 1.0, 1.4)], blur),
]
ALL = [
    *(operators[-1] for operators, _ in LADDERS),
    *(Thickness(0.6), CornerRounding(1.0), Joint((Slant(10.0), Blur(1.0)))),
]
NEUTRAL = [Thickness(1.0), Slant(0.0), Blur(0.0), CornerRounding(0.0), Joint((Slant(), Blur()))]


@pytest.mark.parametrize("operator", [*ALL, *NEUTRAL, Colour((0.2, 0.5, 0.9))], ids=str)
def test_shape_and_range_stay_and_images_do_not_mix(operator: Operator) -> None:
    x = 0.8 * torch.cat([SHAPES, SHAPES.flip(0)]).expand(-1, 3, -1, -1)
    changed = operator(x)
    assert changed.shape == x.shape
    assert changed.dtype == x.dtype
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, operator(x))
    assert torch.allclose(operator(x[1:2]), changed[1:2], atol=1e-5)
    assert not changed[3].any()  # black stays black
    assert operator(x[:0]).shape == x[:0].shape
    assert rebuild(describe(operator)) == operator


@pytest.mark.parametrize("operator", NEUTRAL, ids=str)
def test_a_neutral_amount_gives_the_image_back(operator: Operator) -> None:
    x = torch.rand(3, 1, 16, 20)
    assert torch.allclose(operator(x), x, atol=1e-5)


@pytest.mark.parametrize("kind", [Thickness, Slant, Blur])
def test_the_value_an_image_has_changes_nothing(kind: type) -> None:
    measure = {Thickness: thickness, Slant: slant, Blur: blur}[kind]
    x = bar(3.0, 15.0)
    assert torch.allclose(kind(measure(x).item(), absolute=True)(x), x, atol=1e-3)


@pytest.mark.parametrize("operator", ALL, ids=str)
def test_an_amount_changes_every_shape(operator: Operator) -> None:
    assert ((operator(SHAPES[:3]) - SHAPES[:3]).abs().amax((1, 2, 3)) > 0.1).all()


@pytest.mark.parametrize(("operators", "measure"), LADDERS)
def test_the_measure_rises_with_the_value(operators: list[Operator], measure: Measure) -> None:
    found = torch.stack([measure(operator(SHAPES[:3])) for operator in operators])
    assert (found.diff(dim=0) > 0).all()


@pytest.mark.parametrize("width", [2.0, 3.3, 6.0])
@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_thickness_of_a_bar_is_its_width_across(width: float, angle: float) -> None:
    long = bar(width, angle, length=100.0)
    across = width * math.cos(math.radians(angle))
    assert thickness(long).item() == pytest.approx(across, rel=0.03 if angle == 0 else 0.07)
    short = thickness(bar(4.0, length=16.0)).item()
    assert short == pytest.approx(4 * (1 - 4 / 48), rel=0.03)  # as the docstring says


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5, 2.0])
def test_thickness_multiplies_the_area_of_a_long_stroke(factor: float) -> None:
    x = bar(4.0, 10.0, length=100.0)
    changed = Thickness(factor)(x)
    assert (thickness(changed) / thickness(x)).item() == pytest.approx(factor, rel=0.02)
    assert (changed.sum() / x.sum()).item() == pytest.approx(factor, rel=0.06)


def test_thinning_does_not_break_a_stroke() -> None:
    narrow = bar(4.0)
    narrow[:, :, 13:19] = bar(1.6)[:, :, 13:19]  # a waist that any erosion by a disc would cut
    thin = Thickness(0.6)(narrow)
    assert (thin[0, 0, 8:24].amax(1) > 0.15).all()


@pytest.mark.parametrize("angle", [-30.0, -10.0, 0.0, 5.0, 35.0])
def test_slant_of_a_sheared_bar_is_recovered(angle: float) -> None:
    assert slant(bar(3.0, angle)).item() == pytest.approx(angle, abs=0.5)
    sheared = Slant(angle)(bar(3.0))
    assert slant(sheared).item() == pytest.approx(angle, abs=0.5)
    assert torch.allclose(sheared, bar(3.0, angle), atol=0.25)  # at most of one pixel's edge


def test_slant_turns_about_the_centre_of_mass() -> None:
    x = torch.zeros(1, 1, 28, 28)
    x[..., 2:12, 9:12] = 1  # far from the centre of the image
    columns = torch.arange(28.0)
    before, after = ((image.sum((0, 1, 2)) * columns).sum() for image in (x, Slant(30.0)(x)))
    assert (after / before).item() == pytest.approx(1, abs=0.01)


def test_colour_is_painted_and_what_lies_under_it_stays() -> None:
    red_stroke = bar(3.0) * torch.tensor([0.9, 0.3, 0.0])[:, None, None]
    green = Colour((0.1, 0.8, 0.4))(red_stroke)
    assert torch.allclose(decoloured(green), decoloured(red_stroke), atol=1e-5)
    assert torch.allclose(colour(green), torch.tensor([[0.1, 0.8, 0.4]]), atol=1e-5)
    own = colour(red_stroke)[0].tolist()
    assert torch.allclose(Colour((own[0], own[1], own[2]))(red_stroke), red_stroke, atol=1e-5)


def test_blur_lowers_high_frequencies_and_keeps_the_sum() -> None:
    x = bar(3.0)
    high = torch.fft.fftfreq(32).abs() > 0.2
    energies = []
    for sigma in (0.0, 0.5, 1.0, 2.0):
        blurred = Blur(sigma)(x)
        assert blurred.sum().item() == pytest.approx(x.sum().item(), rel=1e-3)
        spectrum = torch.fft.fft2(blurred).abs().square()[0, 0]
        energies.append(spectrum[high[:, None] | high].sum().item())
    assert all(b < 0.6 * a for a, b in pairwise(energies))


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.5])
def test_blur_of_an_edge_is_measured_and_adds_in_squares(sigma: float) -> None:
    edge = (torch.arange(40) > 19).float().expand(1, 1, 40, 40)
    once = Blur(sigma)(edge)
    assert blur(once).item() == pytest.approx(sigma, rel=0.1)
    twice = Blur(sigma)(once)
    assert torch.allclose(twice, Blur(sigma * math.sqrt(2))(edge), atol=1e-3)


def test_blur_to_a_value_also_sharpens() -> None:
    soft = Blur(1.5)(bar(8.0, 12.0))
    sharp = Blur(0.7, absolute=True)(soft)
    assert blur(sharp).item() == pytest.approx(0.7, rel=0.05)
    assert sharp.sum().item() == pytest.approx(soft.sum().item(), rel=0.05)


def test_rounding_takes_the_corner_and_keeps_the_area() -> None:
    x = ell()
    corners = []
    for radius in (0.0, 0.5, 1.0, 1.5, 2.0):
        rounded = CornerRounding(radius)(x)
        assert rounded.sum().item() == pytest.approx(x.sum().item(), rel=0.02)
        assert blur(rounded).item() < 0.55  # the outline stays sharp
        corners.append(rounded[0, 0, 23, 6].item())
        if radius >= 1:
            assert rounded[0, 0, 19, 10] > 0.4  # the inner corner is filled
            assert rounded[0, 0, 12, 7] > 0.85  # and the stroke left alone
    assert all(b < a - 0.1 for a, b in pairwise(corners))
    assert corners[-1] < 0.2


def test_a_small_amount_is_a_small_change() -> None:
    x = bar(3.0, 10.0)
    own = blur(x).item()
    for operator in (CornerRounding(0.02), Blur(0.98 * own, absolute=True), Thickness(0.99)):
        assert (operator(x) - x).abs().max() < 0.05


def test_joint_applies_in_order() -> None:
    steps = (Thickness(1.5), Slant(20.0))
    x = bar(3.0)
    assert torch.equal(Joint(steps)(x), steps[1](steps[0](x)))


def test_a_sketch_renders_both_values() -> None:
    sketch = Sketch("slant", Slant(-20.0), Slant(20.0))
    first, second = sketch.render(SHAPES)
    assert torch.equal(first, Slant(-20.0)(SHAPES))
    assert torch.equal(second, Slant(20.0)(SHAPES))
    assert rebuild(describe(sketch)) == sketch


@pytest.mark.parametrize(
    ("changes", "measure", "kind"),
    [
        ((Thickness(0.7), Thickness(1.5)), thickness, Thickness),
        ((Slant(-20.0), Slant(25.0)), slant, Slant),
        ((Blur(0.0), Blur(1.2)), blur, Blur),
    ],
    ids=["thickness", "slant", "blur"],
)
def test_two_examples_are_a_sketch(
    changes: tuple[Operator, Operator], measure: Measure, kind: type[Operator]
) -> None:
    examples = [change(bar(5.0)) for change in changes]
    sketch = sketch_from_images("it", examples[0][0], examples[1][0], [kind.__name__.lower()])
    assert isinstance(sketch.first, kind)
    other = torch.cat([bar(3.5, 8.0), bar(6.0, -5.0, 14.0)])
    for example, side in zip(examples, sketch.render(other), strict=True):
        wanted = measure(example).expand(2)
        assert torch.allclose(measure(side), wanted, rtol=0.05, atol=1.0 if kind is Slant else 0.1)


def test_examples_of_any_shape_differ_in_what_differs() -> None:
    white = torch.ones(3, 1, 1)
    first, second = bar(3.0)[0] * white, bar(3.0)[0] * torch.tensor([0.2, 0.4, 1.0])[:, None, None]
    sketch = sketch_from_images("colour", first, second)
    assert isinstance(sketch.first, Colour)
    assert isinstance(sketch.second, Colour)
    assert sketch.second.value == pytest.approx((0.2, 0.4, 1.0), abs=1e-4)
    both = sketch_from_images("style", Blur(1.0)(bar(4.0))[0], Blur(1.0)(bar(7.0, 25.0))[0])
    assert isinstance(both.first, Joint)
    assert [type(part) for part in both.first.operators[:2]] == [Slant, Thickness]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Thickness(0.0), "thickness is 0.0, expected more than 0"),
        (lambda: Slant(90.0), "slant is 90.0, expected degrees between -80 and 80"),
        (lambda: Colour((0.0, 0.0, 0.0)), "expected red, green and blue in .0, 1., not all 0"),
        (lambda: Colour((255.0, 0.0, 0.0)), "Divide bytes by 255"),
        (lambda: Blur(-1.0), "blur is -1.0, expected a standard deviation of 0 pixels or more"),
        (lambda: Blur(0.0, absolute=True), "more than 0 with absolute=True"),
        (lambda: CornerRounding(-1.0), "radius of rounding is -1.0, expected 0 pixels or more"),
        (lambda: Joint(()), "no operator came, expected at least one"),
        (lambda: Sketch("a", Slant(1.0), Blur(1.0)), "change Slant on one side and Blur on the"),
        (
            lambda: Sketch("a", Slant(1.0), Slant(1.0, True)),
            "change Slant on one side and Sl.* to",
        ),
        (lambda: Sketch("a", Slant(1.0), Slant(1.0)), "both sketches of 'a' are .*two different"),
        (lambda: Slant(1.0)(torch.rand(1, 28, 28)), r"shape \(1, 28, 28\), expected .*x\[None\]"),
        (lambda: Slant(1.0)(torch.rand(5, 784)), r"shape \(5, 784\), expected .*x.unflatten"),
        (lambda: Slant(1.0)(255 * torch.rand(1, 1, 8, 8)), "values from .* to .*expected .0, 1."),
        (lambda: Slant(1.0)(torch.full((1, 1, 8, 8), math.nan)), "values from nan to nan"),
        (lambda: Colour()(torch.rand(2, 1, 8, 8)), "images have 1 channels, expected red"),
        (lambda: colour(torch.rand(2, 1, 8, 8)), "images have 1 channels, expected red"),
        (
            lambda: sketch_from_images("a", bar(), bar()),
            r"first example has shape \(1, 1, 32, 32\), expected \(channels.*x\[0\]",
        ),
        (
            lambda: sketch_from_images("a", bar()[0], 0 * bar()[0]),
            "second example is black, expected bright strokes",
        ),
        (
            lambda: sketch_from_images("a", bar()[0], bar()[0].expand(3, -1, -1)),
            "examples have 1 and 3 channels",
        ),
        (
            lambda: sketch_from_images("a", bar()[0], bar()[0], ["colour"]),
            "no concept 'colour' in images of 1 channels, expected some of slant, thick",
        ),
        (
            lambda: sketch_from_images("a", bar()[0], bar(3.1)[0]),
            r"differ in none of slant \(.*thickness \(.*Give examples that differ more",
        ),
    ],
)
def test_what_is_out_of_range_is_said(make: Callable[[], object], message: str) -> None:
    with as_a_user(), pytest.raises(ValueError, match=message):
        make()


def test_wrong_kinds_are_said() -> None:
    with as_a_user():
        with pytest.raises(TypeError, match=r"torch.uint8, expected floats in .*as_floats"):
            Blur(1.0)(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
        with pytest.raises(TypeError, match="operators is a float, expected operators of svae"):
            Joint((1.0,))  # pyright: ignore[reportArgumentType]


@pytest.mark.data
def test_on_real_digits(data_root: Path) -> None:
    x = read(data_root / "MNIST" / "raw", "test")[0][:64].float() / 255
    own = thickness(x)
    assert 1.5 < own.median() < 3.5
    for factor in (0.7, 1.4):
        ratio = thickness(Thickness(factor)(x)) / own
        assert ratio.median().item() == pytest.approx(factor, rel=0.01)
        assert ((ratio / factor - 1).abs() < 0.05).float().mean() > 0.9  # holes may close
    to = Thickness(3.0, absolute=True)(x)
    assert ((thickness(to) - 3).abs() < 0.15).float().mean() > 0.9
    assert torch.allclose(slant(Slant(15.0, absolute=True)(x)), torch.full((64,), 15.0), atol=2.0)
    assert torch.allclose(blur(Blur(0.9, absolute=True)(x)), torch.full((64,), 0.9), atol=0.05)
    rounded = CornerRounding(1.0)(x)
    areas = rounded.sum((1, 2, 3)) / x.sum((1, 2, 3))
    assert (areas - 1).abs().max() < 0.02
    assert ((rounded - x).abs().amax((1, 2, 3)) > 0.2).all()

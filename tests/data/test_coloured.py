"""Colours are drawn as defined, independent of the digit, and read back from the pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from svae.data import (
    MNIST,
    ArrayData,
    ArraySet,
    ColouredDigits,
    Digits,
    TabularData,
    as_data,
)
from svae.data.coloured import (
    COLOUR_NAMES,
    Colours,
    colour_labels,
    decoloured,
    draw_colours,
    paint,
    read_colour,
)
from tests.data.conftest import write_idx
from tests.unchecked import as_a_user

DIGITS = Digits()


def colours_of(part: ArraySet) -> torch.Tensor:
    assert part.factors is not None
    return part.factors


def test_uniform_colours() -> None:
    colour = draw_colours("uniform", 20000, torch.Generator().manual_seed(3))
    for channel in colour.T:
        assert stats.kstest(channel.double().numpy(), stats.uniform(0.2, 0.8).cdf).pvalue > 1e-3
    assert colour.T.corrcoef().triu(1).abs().max() < 0.03


def test_uniform_colours_of_many_seeds() -> None:
    # One seed says little: with seed 0 a channel has p = .0005, as one of 2000 must. Over all of
    # them the p values are uniform, which no single seed can be chosen to satisfy.
    levels = []
    for seed in range(40):
        colour = draw_colours("uniform", 20000, torch.Generator().manual_seed(seed))
        true = stats.uniform(0.2, 0.8).cdf
        levels += [stats.kstest(channel.double().numpy(), true).pvalue for channel in colour.T]
    assert stats.kstest(levels, "uniform").pvalue > 1e-3
    assert min(levels) * len(levels) > 1e-3


def test_mixture_of_colours() -> None:
    def cdf(v: np.ndarray) -> np.ndarray:
        parts = ((0.60, 0.70, 0.08), (0.35, 0.50, 0.015), (0.05, 0.10, 0.02))
        return np.sum([w * stats.norm(m, s).cdf(v) for w, m, s in parts], axis=0)

    colour = draw_colours("mixture", 20000, torch.Generator().manual_seed(1))
    for channel in colour.T:
        assert stats.kstest(channel.double().numpy(), cdf).pvalue > 1e-3
        # the test above would hardly see the dark component
        assert 0.044 < (channel < 0.2).double().mean() < 0.056
    assert colour.T.corrcoef().triu(1).abs().max() < 0.03
    assert colour.min() >= 0
    assert colour.max() <= 1


@pytest.mark.parametrize("colours", ["uniform", "mixture"])
def test_first_colours_do_not_depend_on_how_many(colours: Colours) -> None:
    many = draw_colours(colours, 1000, torch.Generator().manual_seed(3))
    for n in (1, 7, 500):
        assert torch.equal(draw_colours(colours, n, torch.Generator().manual_seed(3)), many[:n])


@pytest.mark.parametrize("colours", ["uniform", "mixture"])
def test_a_picture_is_grey_times_colour(colours: Colours) -> None:
    data = ColouredDigits(DIGITS, colours, seed=5)
    for name in ("train", "validation", "test"):
        part, grey = getattr(data, name), getattr(DIGITS, name)
        exact = grey.floats()[:, 0, None] * colours_of(part)[:, :, None, None]
        assert (part.floats() - exact).abs().max() <= 0.5001 / 255  # rounded, not cut off
        assert torch.equal(part.y, grey.y)
    assert data.x_shape == (3, 8, 8)
    assert (data.name, data.class_names) == ("coloured-digits", DIGITS.class_names)
    floats = as_data((DIGITS.train.floats() * 0.777, DIGITS.train.y))
    part = ColouredDigits(floats).train
    assert torch.equal(part.x, paint(floats.train.x, colours_of(part)))  # floats stay exact


def test_colours_depend_on_seed_split_and_index_alone(tmp_path: Path) -> None:
    first, again, other = (ColouredDigits(Digits(), seed=s) for s in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(colours_of(first.test), colours_of(again.test))
    sets = [colours_of(getattr(d, s)) for d in (first, other) for s in ("train", "test")]
    for i, a in enumerate(sets):
        for b in sets[:i]:
            assert (a[:200] - b[:200]).abs().mean() > 0.2  # 0.8 / 3 for independent ones
    write_idx(tmp_path)
    whole, limited = (
        ColouredDigits(MNIST(tmp_path, n_validation=50, limit=n)) for n in (None, 40)
    )
    assert torch.equal(limited.train.x, whole.train.x[:40])


def test_settings_of_the_base_are_kept() -> None:
    def darker(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    base = Digits(batch_size=16, augment=darker)
    data = ColouredDigits(base, seed=3)
    assert (data.batch_size, data.seed, data.augment) == (16, 3, darker)
    assert ColouredDigits(base, batch_size=4).batch_size == 4


def test_corners() -> None:
    corners = torch.tensor([[(k >> 2) & 1, (k >> 1) & 1, k & 1] for k in range(8)])
    near = {"uniform": 0.25 + 0.7 * corners, "mixture": 0.1 + 0.6 * corners}
    for colours, colour in near.items():
        cube = (0.2 + 0.8 * corners) if colours == "uniform" else corners.float()
        assert colour_labels(colour, colours).tolist() == list(range(8))  # type: ignore[arg-type]
        drawn = draw_colours(colours, 500)  # type: ignore[arg-type]
        nearest = torch.cdist(drawn, cube).argmin(1)
        assert torch.equal(colour_labels(drawn, colours), nearest)  # type: ignore[arg-type]
    pure = ("red", "green", "blue", "yellow")
    assert [COLOUR_NAMES.index(name) for name in pure] == [4, 2, 1, 6]
    data = ColouredDigits(DIGITS, "mixture")
    assert data.colour_labels(torch.tensor([[0.55, 0.45, 0.1]])).tolist() == [4]


def test_colour_is_read_in_spite_of_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = DIGITS.test.floats()
    grey = grey / grey.amax((-2, -1), keepdim=True)
    colour = draw_colours("uniform", len(grey), generator)
    clean = paint(grey, colour)
    assert (read_colour(clean) - colour).abs().max() < 1e-5
    noisy = clean + 0.02 * torch.randn(clean.shape, generator=generator)
    error = (read_colour(noisy) - colour).abs()
    assert error.mean() < 0.02
    hue, true = (c / c.sum(1, keepdim=True) for c in (read_colour(noisy), colour))
    assert (hue - true).abs().mean() < 0.003


def test_decoloured_ignores_colour_and_nothing_else() -> None:
    grey = DIGITS.test.floats()
    one, two = (
        draw_colours("uniform", len(grey), torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    a, b = decoloured(paint(grey, one)), decoloured(paint(grey, two))
    assert (a - b).abs().max() < 1e-6
    assert (a - grey / grey.amax((-2, -1), keepdim=True)).abs().max() < 1e-6
    # rounded to bytes, within the bound of the docstring
    first, second = (ColouredDigits(DIGITS, seed=s).test for s in (0, 1))
    gap = (decoloured(first.floats()) - decoloured(second.floats())).abs().amax((1, 2, 3))
    bound = (3 / 255) * (1 / colours_of(first).sum(1) + 1 / colours_of(second).sum(1))
    assert (gap <= bound).all()
    x = paint(grey, one)
    assert (paint(decoloured(x), read_colour(x)) - x).abs().max() < 1e-6


def test_black_pictures_have_no_colour() -> None:
    black = torch.zeros(2, 3, 8, 8)
    assert torch.equal(read_colour(black), torch.zeros(2, 3))
    assert torch.equal(decoloured(black), torch.zeros(2, 1, 8, 8))


def test_bases_that_cannot_be_coloured() -> None:
    coloured = ColouredDigits(DIGITS)
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\), expected grey pictures \(1, heig"):
        ColouredDigits(coloured)
    table = TabularData(torch.rand(50, 3), torch.arange(50) % 2)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected grey"):
        ColouredDigits(table)
    with pytest.raises(ValueError, match="0 or 1 for every batch"):
        ColouredDigits(Digits(binarise=True))
    with as_a_user(), pytest.raises(TypeError, match=r"base is a Tensor, expected a set.*as_d"):
        ColouredDigits(torch.rand(5, 1, 8, 8))  # type: ignore[arg-type]
    with as_a_user(), pytest.raises(ValueError, match="'pastel', expected 'uniform' or 'mixture'"):
        ColouredDigits(DIGITS, "pastel")  # type: ignore[arg-type]


@pytest.mark.data
@pytest.mark.parametrize("colours", ["uniform", "mixture"])
def test_real_digits(data_root: Path, colours: Colours) -> None:
    base: ArrayData = MNIST(data_root)
    data = ColouredDigits(base, colours)
    for part, grey in ((data.validation, base.validation), (data.test, base.test)):
        colour, x = colours_of(part), part.floats()
        error = (read_colour(x) - colour).abs().amax(1)
        # a channel of .1 has 26 levels, so rounding alone moves it
        assert error.max() < 0.02
        assert (decoloured(x) - grey.floats()).abs().mean() < 0.001
        # independent of the digit: no class has a colour of its own
        assert part.y is not None
        means = torch.stack([colour[part.y == k].mean(0) for k in range(10)])
        spread = colour.std(0) / (len(part) / 10) ** 0.5
        assert ((means - colour.mean(0)) / spread).abs().max() < 4

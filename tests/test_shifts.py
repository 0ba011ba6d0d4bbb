"""Texture against shape: what each version keeps of a picture and what it loses."""

import pytest
import torch
from torch import Tensor

from svae.shifts import edges, hybrid, luminance, shuffled_patches
from tests.unchecked import as_a_user


def wave(frequency: float, side: int = 32) -> Tensor:
    """A grating of so many cycles per pixel, along the width."""
    columns = torch.arange(side, dtype=torch.float32)
    row = 0.5 + 0.2 * torch.sin(2 * torch.pi * frequency * columns)
    return row.expand(1, 3, side, side).clone()


def amplitude(x: Tensor, frequency: float) -> float:
    spectrum = torch.fft.rfft(x[0, 0, 0]).abs()
    return float(spectrum[round(frequency * x.shape[-1])] / (0.1 * x.shape[-1]))


def test_a_hybrid_is_coarse_as_one_and_fine_as_the_other() -> None:
    coarse, fine = wave(1 / 32), wave(12 / 32)
    mixed = hybrid(coarse, fine, 0.12)
    assert amplitude(mixed, 1 / 32) > 0.95
    assert amplitude(mixed, 12 / 32) > 0.95
    swapped = hybrid(fine, coarse, 0.12)
    assert amplitude(swapped, 1 / 32) < 0.05
    assert amplitude(swapped, 12 / 32) < 0.05


def test_half_the_amplitude_passes_at_the_cutoff() -> None:
    frequency = 8 / 32
    for pair in ((wave(frequency), wave(0)), (wave(0), wave(frequency))):
        passed = hybrid(*pair, cutoff=frequency)
        assert amplitude(passed, frequency) == pytest.approx(0.5, rel=1e-3)
    x = torch.rand(3, 1, 9, 7)  # odd sides come back whole
    assert torch.allclose(hybrid(x, x), x, atol=1e-6)


def test_shuffled_patches_are_the_same_squares() -> None:
    x = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12) / 600
    mixed = shuffled_patches(x, 4, torch.Generator().manual_seed(0))
    assert not torch.equal(mixed, x)
    for before, after in zip(x, mixed, strict=True):
        squares = {
            tuple(one.flatten().tolist())
            for one in before.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).flatten(0, 1)
        }
        again = {
            tuple(one.flatten().tolist())
            for one in after.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).flatten(0, 1)
        }
        assert squares == again
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    one, other = (shuffled_patches(x, 4, g) for g in generators)
    assert torch.equal(one, other)


def test_luminance_of_pure_colours() -> None:
    pure = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 2, 2)
    grey = luminance(pure)[:, :, 0, 0]
    assert torch.allclose(grey, torch.tensor([[0.299], [0.587], [0.114]]).expand(3, 3))


def test_edges_are_dark_where_the_picture_changes() -> None:
    x = torch.zeros(1, 2, 10, 10)
    x[:, 1, :, 5:] = 1.0
    drawn = edges(x, 1.0)
    assert torch.equal(drawn[0, 0], drawn[0, 1])
    assert torch.allclose(drawn[0, 0, :, [4, 5]], torch.zeros(10, 2), atol=1e-6)
    assert torch.allclose(drawn[0, 0, :, [0, 1, 2, 3, 6, 7, 8, 9]], torch.ones(10, 8))
    # As dark for a change downwards as for one to the side.
    assert torch.allclose(edges(x.transpose(2, 3), 1.0), drawn.transpose(2, 3))


def test_wrong_numbers_and_shapes_are_refused() -> None:
    x = torch.rand(1, 3, 8, 8)
    with as_a_user(), pytest.raises(ValueError, match="one shape"):
        hybrid(x, x[..., :4])
    with pytest.raises(ValueError, match="cutoff must be above 0"):
        hybrid(x, x, 0.0)
    with pytest.raises(ValueError, match="do not fill pictures of 8 by 8"):
        shuffled_patches(x, 3)
    with as_a_user(), pytest.raises(ValueError, match="three channels, got 1"):
        luminance(x[:, :1])
    with pytest.raises(ValueError, match="strength must be above 0"):
        edges(x, 0.0)

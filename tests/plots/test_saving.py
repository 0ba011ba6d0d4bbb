import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from svae import plots


def natural(n: int, size: int) -> torch.Tensor:
    """Colour images with structure at all scales, as hard to compress as photographs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(n * n, 3, size, size)
    for octave in (2, 4, 8, 16, size):
        noise = torch.randn(n * n, 3, octave, octave, generator=generator) / octave**0.8
        x += torch.nn.functional.interpolate(noise, size=size, mode="bilinear")
    return (0.5 + 0.4 * x).clamp(0, 1).unflatten(0, (n, n))


@pytest.mark.parametrize("size", [32, 64])
def test_large_colour_grids_are_made_small_enough(tmp_path: Path, size: int) -> None:
    path = plots.save(plots.image_grid(natural(10, size), title="title"), tmp_path / "grid.png")
    assert 50_000 < path.stat().st_size <= 200_000
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 330


def test_what_fits_is_written_without_loss(tmp_path: Path) -> None:
    levels = (torch.arange(256.0) / 255).reshape(1, 1, 1, 16, 16)
    for name, images in (("gray", levels), ("colour", natural(2, 16))):
        figure = plots.image_grid(images, title=name)
        rendered = io.BytesIO()
        figure.savefig(rendered, format="png")
        path = plots.save(figure, tmp_path / "a" / "b" / f"{name}.png")
        with Image.open(path) as picture, Image.open(rendered) as expected:
            np.testing.assert_array_equal(picture.convert("RGB"), expected.convert("RGB"))
        assert path.stat().st_size < len(rendered.getvalue())


def test_colours_are_rounded_before_the_picture_shrinks(tmp_path: Path) -> None:
    figure = plots.image_grid(natural(3, 32))
    exact = np.asarray(Image.open(plots.save(figure, tmp_path / "exact.png")).convert("RGB"))
    limit = (tmp_path / "exact.png").stat().st_size * 3 // 4
    path = plots.save(figure, tmp_path / "small.png", max_bytes=limit)
    small = np.asarray(Image.open(path).convert("RGB"))
    assert path.stat().st_size <= limit
    assert small.shape == exact.shape
    assert 0 < np.abs(small.astype(int) - exact).max() <= 6


def test_what_cannot_be_written_is_explained(tmp_path: Path) -> None:
    figure: Any = plots.image_grid(torch.rand(1, 1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"'a.jpg'. Name it 'a.png'"):
        plots.save(figure, tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="at most 100 are allowed"):
        plots.save(figure, tmp_path / "a.png", max_bytes=100)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the picture .*Choose a folder"):
        plots.save(figure, tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match="cannot write the picture"):
        plots.save(figure, tmp_path / "folder.png")

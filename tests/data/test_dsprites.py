"""dSprites in both of its forms, damaged, absent, and the real thing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from svae.data import DSprites, choose


def write(
    folder: Path, name: str = "dsprites_downsampled.npz", columns: int = 5, n: int = 90
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 2, (n, 64, 64)).astype(np.uint8)
    classes = generator.integers(0, 3, (n, columns))
    classes[:, -5] = np.arange(n) % 3
    values = generator.random((n, columns))
    values[:, -1] = pictures.mean((1, 2))  # so that rows can be told apart
    path = folder / name
    np.savez(path, imgs=pictures, latents_classes=classes, latents_values=values)
    return path


@pytest.mark.parametrize(
    ("folder", "name", "columns"),
    [
        ("dsprites", "dsprites_downsampled.npz", 5),
        (".", "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", 6),  # with the colour
    ],
)
def test_shapes_are_classes_and_the_rest_are_factors(
    tmp_path: Path, folder: str, name: str, columns: int
) -> None:
    write(tmp_path / folder, name, columns)
    data = DSprites(tmp_path, n_validation=15, n_test=30)
    assert data.x_shape == (1, 64, 64)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [45, 15, 30]
    assert data.class_names == ("square", "ellipse", "heart")
    for part in (data.train, data.validation, data.test):
        assert part.y is not None
        assert part.factors is not None
        assert part.factors.shape == (len(part), 4)
        assert torch.bincount(part.y).tolist() == [len(part) // 3] * 3
        # Pictures keep their rows of factors.
        share = (part.x > 0).float().mean((1, 2, 3))
        assert torch.allclose(share, part.factors[:, 3], atol=1e-6)
        assert part.x.unique().tolist() == [0, 255]


def test_splits_are_fixed_by_the_seed(tmp_path: Path) -> None:
    write(tmp_path / "dsprites")
    first, again, other = (
        DSprites(tmp_path, n_validation=15, n_test=30, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.test.x, other.test.x)
    limited = DSprites(tmp_path, n_validation=15, n_test=30, seed=1, limit=9)
    assert len(limited.train) == 9
    assert torch.equal(limited.validation.x, first.validation.x)


def test_what_is_absent_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dSprites is not in .*Put dsprites_ndarray"):
        choose("dsprites", tmp_path)
    path = write(tmp_path / "dsprites")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"dsprites_downsampled\.npz is damaged: expected an npz"):
        DSprites(tmp_path)
    np.savez(path, imgs=np.zeros((9, 64, 64), np.uint8))
    with pytest.raises(ValueError, match="latents_classes"):
        DSprites(tmp_path)
    rows = np.zeros((8, 5))
    np.savez(path, imgs=np.zeros((9, 64, 64), np.uint8), latents_classes=rows, latents_values=rows)
    with pytest.raises(ValueError, match="8 rows of factors for 9 of them"):
        DSprites(tmp_path)


@pytest.mark.data
def test_the_real_grid_is_whole() -> None:
    data = DSprites()
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [39_080, 2000, 5000]
    factors = torch.cat([part.factors for part in parts if part.factors is not None])
    assert [len(column.unique()) for column in factors.T] == [6, 10, 16, 16]
    # Larger shapes cover more; places are those of the picture's middle of mass.
    x, true = data.test.floats(limit=2000), data.test.factors
    assert true is not None
    places = torch.arange(64.0)
    across = (x.sum((1, 2)) * places).sum(1) / x.sum((1, 2, 3))
    assert float(torch.corrcoef(torch.stack([across, true[:2000, 2]]))[0, 1]) > 0.99
    assert float(torch.corrcoef(torch.stack([x.sum((1, 2, 3)), true[:2000, 0]]))[0, 1]) > 0.6

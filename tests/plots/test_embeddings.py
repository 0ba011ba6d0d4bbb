import logging
import sys
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from svae import plots
from svae.plots.embeddings import PALETTE


def clouds(n: int, features: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clouds far from each other."""
    y = torch.arange(n) % 3
    noise = torch.randn(n, features, generator=torch.Generator().manual_seed(0))
    return noise + 20 * torch.eye(3, features)[y], y


@pytest.fixture
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)


@pytest.mark.slow  # umap-learn compiles for longer than it works
def test_umap_separates_clouds_repeatably(
    caplog: pytest.LogCaptureFixture, one_thread: None
) -> None:
    codes, y = clouds(90)
    with caplog.at_level(logging.INFO, logger="svae"):
        points = plots.embed(codes, seed=1)
        again = plots.embed(codes, seed=1)
        figure = plots.embedding({"z_class": codes}, y, ["a", "b", "c"])
    assert torch.get_num_threads() == 1
    assert not caplog.records  # no fall-back
    assert figure.axes[0].get_title() == "z_class (UMAP)"
    torch.testing.assert_close(points, again, rtol=0, atol=0)
    assert points.shape == (90, 2)
    same = y[:, None] == y
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert same[torch.arange(90), distances.argmin(1)].all()


class FakeUMAP:
    """Records how it is built; its map is the first two features."""

    built: ClassVar[list[dict[str, Any]]] = []
    fails = False

    def __init__(self, **settings: Any) -> None:
        self.built.append(settings)

    def fit_transform(self, codes: np.ndarray) -> np.ndarray:
        if self.fails:
            raise ValueError("cannot fit")
        torch.set_num_threads(2)  # as numba does to whom it shares threads with
        return codes[:, :2]


@pytest.fixture
def fake_umap(monkeypatch: pytest.MonkeyPatch) -> type[FakeUMAP]:
    monkeypatch.setattr(FakeUMAP, "built", [])
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FakeUMAP))
    return FakeUMAP


def test_umap_leaves_torch_its_threads(fake_umap: type[FakeUMAP], one_thread: None) -> None:
    plots.embed(clouds(30)[0])
    assert fake_umap.built
    assert torch.get_num_threads() == 1


def test_umap_is_given_the_seed_on_one_thread(fake_umap: type[FakeUMAP]) -> None:
    codes, y = clouds(30)
    torch.testing.assert_close(plots.embed(codes, seed=7), codes[:, :2])
    (settings,) = fake_umap.built
    assert (settings["random_state"], settings["n_jobs"]) == (7, 1)
    figure = plots.embedding({"z_class": codes}, y, ["a", "b", "c"])
    assert figure.axes[0].get_title() == "z_class (UMAP)"


def test_a_line_is_one_dim_of_umap(fake_umap: type[FakeUMAP]) -> None:
    plots.embed(clouds(30)[0], n_dims=2)
    codes = clouds(30)[0][:, :1]
    torch.testing.assert_close(plots.embed(codes, n_dims=1), codes)
    assert [settings["n_components"] for settings in fake_umap.built] == [2, 1]
    assert [settings["init"] for settings in fake_umap.built] == ["pca", "pca"]


@pytest.mark.usefixtures("no_umap")
def test_a_line_is_the_first_principal_component() -> None:
    codes, _ = clouds(30)
    line = plots.embed(codes, n_dims=1)
    assert line.shape == (30, 1)
    largest = torch.linalg.svdvals(codes - codes.mean(0))[:1]
    torch.testing.assert_close(torch.linalg.svdvals(line), largest)


def test_pca_stands_in_for_a_failing_umap(
    fake_umap: type[FakeUMAP], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fake_umap, "fails", True)
    with caplog.at_level(logging.INFO, logger="svae"):
        assert plots.embed(clouds(30)[0]).shape == (30, 2)
    assert "UMAP failed (ValueError: cannot fit)" in caplog.text


@pytest.mark.usefixtures("no_umap")
def test_pca_stands_in_for_a_missing_umap_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    codes, y = clouds(30)
    with caplog.at_level(logging.INFO, logger="svae"):
        figure = plots.embedding({"z": codes}, y, ["a", "b", "c"])
    assert "umap-learn cannot be imported" in caplog.text
    assert figure.axes[0].get_title() == "z (PCA)"


@pytest.mark.parametrize(
    ("codes", "why"),
    [(torch.rand(14, 3), "14 points are fewer"), (torch.ones(20, 3), "all codes are equal")],
)
def test_few_or_equal_codes_are_embedded_by_pca(
    codes: torch.Tensor, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="svae"):
        points = plots.embed(codes)
    assert why in caplog.text
    # Two principal components keep the two largest singular values.
    kept = torch.linalg.svdvals(points)
    torch.testing.assert_close(
        kept, torch.linalg.svdvals(codes - codes.mean(0))[:2], atol=1e-5, rtol=1e-4
    )


@pytest.mark.usefixtures("no_umap")
def test_points_have_the_colour_of_their_class_in_every_panel() -> None:
    y = torch.arange(40) % 12
    # The first axis of the PCA is the class, up to sign.
    codes = torch.stack([y.float() ** 2, torch.zeros(40)], 1)
    feature_map = codes.reshape(40, 2, 1, 1)
    names = [f"class {k}" for k in range(12)]
    figure = plots.embedding({"z_class": codes, "z_nuisance": feature_map}, y, names)
    assert [axes.get_title() for axes in figure.axes] == ["z_class (PCA)", "z_nuisance (PCA)"]
    for axes in figure.axes:
        assert len(axes.collections) == 2  # two kinds of markers for more than ten classes
        found = [
            (position, to_hex(color), kind)
            for kind, scatter in enumerate(cast(list[Any], axes.collections))
            for position, color in zip(
                np.asarray(scatter.get_offsets())[:, 0], scatter.get_facecolors(), strict=True
            )
        ]
        assert len(found) == 40
        positions = np.array([position for position, _, _ in found])
        sign = np.sign(positions[[kind == 1 for _, _, kind in found]].mean())
        ranks = np.unique((positions * sign).round(3), return_inverse=True)[1]
        for rank, (_, color, kind) in zip(ranks, found, strict=True):
            assert (color, kind) == (PALETTE[rank % 10], rank // 10)
    legend: Any = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == names
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert not any(axes.get_window_extent().overlaps(box) for axes in figure.axes)


@pytest.mark.usefixtures("no_umap")
def test_many_points_are_subsampled_by_the_seed() -> None:
    codes, y = clouds(300)
    panels = plots.embedding({"a": codes, "b": codes}, y, ["a", "b", "c"], max_points=50).axes
    offsets = [np.asarray(axes.collections[0].get_offsets()) for axes in panels]
    assert offsets[0].shape == (50, 2)
    np.testing.assert_array_equal(offsets[0], offsets[1])


def test_wrong_codes_and_labels_are_explained() -> None:
    codes, y = clouds(30)
    with pytest.raises(ValueError, match="Check for NaN"):
        plots.embed(codes * torch.nan)
    with pytest.raises(ValueError, match=r"each of the 29 labels, got \{'z': 30\}"):
        plots.embedding({"z": codes}, y[1:], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"0\.\.1, .* got 0\.\.2"):
        plots.embedding({"z": codes}, y, ["a", "b"])
    with pytest.raises(ValueError, match=r"got \{\}"):
        plots.embedding({}, y, ["a", "b", "c"])

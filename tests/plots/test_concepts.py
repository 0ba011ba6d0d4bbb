import sys
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from torch import Tensor

from svae import plots
from svae.editing import Lines, Response, response, walk_part
from svae.latent import Latent
from svae.plots.embeddings import PALETTE
from tests.plots.sheets import drawn, n_frames, shown, texts
from tests.unchecked import as_a_user


class Halves:
    """The upper half of a picture is the class, the lower half the nuisance.

    The answer is the quarter of [0, 1] that the mean of the upper half lies in.
    """

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[:, :, :4].flatten(1), x[:, :, 4:].flatten(1))

    def decode(self, latent: Latent) -> Tensor:
        return torch.cat([part.unflatten(1, (1, 4, 8)) for part in latent], 2)

    def predict(self, x: Tensor) -> Tensor:
        centres = torch.arange(4) / 4 + 0.125
        return -100 * (x[:, :, :4].mean((1, 2, 3)).unsqueeze(1) - centres).abs()

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.rand(n, *latent.z_nuisance.shape, generator=generator)


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def with_upper(x: Tensor, upper: Tensor) -> Tensor:
    return torch.cat([upper[..., :4, :], x[..., 4:, :]], -2)


def boxes_of(figure: Any) -> list[Any]:
    """Where all texts that are seen lie, once a figure is drawn."""
    figure.draw_without_rendering()
    found = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        found += axes.texts
        if axes.axison:
            found += [axes.title, axes.xaxis.label, axes.yaxis.label]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                found += [tick.label1 for tick in ticks if tick.label1.get_visible()]
    return [text.get_window_extent() for text in found if text.get_text()]


def assert_readable(figure: Any) -> None:
    boxes = [box for box in boxes_of(figure) if box.width and box.height]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.padded(1).containsx(x) for box in boxes for x in (box.x0, box.x1))
    assert all(figure.bbox.padded(1).containsy(y) for box in boxes for y in (box.y0, box.y1))


@pytest.mark.parametrize("own", [True, False])
def test_transfer_takes_the_part_of_the_column(own: bool) -> None:
    x, other = pictures(3), pictures(3 if own else 2, seed=0 if own else 1)
    columns = [f"c{j}" for j in range(len(other))]
    figure = plots.transfer(
        Halves(), x, "class", None if own else other, ["r0", "r1", "r2"], columns
    )
    grid = drawn(figure)
    m = len(other)
    assert (len(grid), len(grid[0]), n_frames(figure)) == (4, 1 + m, 3 + m)
    assert grid[0][0] is None
    for i in range(3):
        np.testing.assert_array_equal(grid[1 + i][0], shown(x[i]))
        for j in range(m):
            np.testing.assert_array_equal(grid[0][1 + j], shown(other[j]))
            expected = shown(with_upper(x[i], other[j]))
            np.testing.assert_array_equal(grid[1 + i][1 + j], expected)
    words = [*("r0", "r1", "r2"), *columns, "the rest of", "class of"]
    assert [text for text in texts(figure) if text][:-1] == words
    assert texts(figure)[-1].replace("\n", " ") == "Part class of the column, the rest of the row"
    positions = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    first: Any = figure.axes[0].images[0].get_extent()
    assert first[3] < positions["r0"][1] < first[2]  # beside its row, not beside the margin's


def test_transfer_of_all_parts_gives_the_column() -> None:
    x = pictures(2)
    figure = plots.transfer(Halves(), x, ["class", "nuisance"])
    np.testing.assert_array_equal(drawn(figure)[1][2], shown(x[1]))
    assert "class + nuisance of" in texts(figure)


def test_interpolations_go_from_start_to_end_in_one_part() -> None:
    x, other = pictures(2), pictures(2, seed=1)
    figure = plots.interpolations(Halves(), x, other, ["nuisance", "class"], n=5)
    grid = drawn(figure)
    assert (len(grid), len(grid[0]), n_frames(figure)) == (4, 7, 8)
    for row in range(4):
        i, moves_class = row // 2, row % 2 == 1
        np.testing.assert_array_equal(grid[row][0], shown(x[i]))
        np.testing.assert_array_equal(grid[row][6], shown(other[i]))
        for j in range(5):
            between = x[i] + j / 4 * (other[i] - x[i])
            kept = with_upper(x[i], between) if moves_class else with_upper(between, x[i])
            np.testing.assert_allclose(grid[row][1 + j], shown(kept), atol=1e-6)
    labels = ["nuisance", "class"] * 2 + ["start", "0", "0.25", "0.5", "0.75", "1", "end"]
    assert texts(figure)[:-1] == labels


def test_resampled_parts_change_one_part_of_an_input() -> None:
    x = pictures(3)
    figure = plots.resampled_parts(
        Halves(), x, ["class", "nuisance"], 4, torch.Generator().manual_seed(2)
    )
    grid = drawn(figure)
    assert (len(grid), len(grid[0]), n_frames(figure)) == (6, 5, 6)
    for row in range(6):
        i = row // 2
        upper, lower = shown(x[i])[:4], shown(x[i])[4:]
        np.testing.assert_array_equal(grid[row][0], shown(x[i]))
        for image in grid[row][1:]:
            if row % 2:
                np.testing.assert_array_equal(image[:4], upper)
                assert not np.allclose(image[4:], lower)
            else:  # the class of one of the inputs
                np.testing.assert_array_equal(image[4:], lower)
                assert any(np.array_equal(image[:4], shown(other)[:4]) for other in x)
    assert texts(figure)[:7] == ["class", "nuisance"] * 3 + ["input"]
    assert_readable(figure)


@pytest.mark.parametrize("kind", [plots.interpolations, plots.resampled_parts])
def test_one_part_needs_no_list(kind: Any) -> None:
    x = pictures(2)
    arguments = (x, pictures(2, 1)) if kind is plots.interpolations else (x,)
    assert texts(kind(Halves(), *arguments, "nuisance"))[:2] == ["nuisance"] * 2


def flat(latent: Latent) -> Tensor:
    """The first two features of the nuisance, far from the mean of any, in four."""
    plane = 10 * latent.z_nuisance[:, :2] * torch.tensor([2.0, 1.0])
    return torch.nn.functional.pad(plane, (0, 2))


def test_walks_lie_on_the_map_of_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    factorization, x, y = Halves(), pictures(2), torch.arange(40) % 3
    background = flat(Halves().encode(pictures(40, 3)))
    figure = plots.walk(
        factorization, x, flat, ["nuisance", "nuisance"], background, y, ["a", "b", "c"],
        n_steps=6, generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["nuisance (PCA)"] * 2
    for axes in panels:
        latent = walk_part(factorization, x, "nuisance", 6, generator=generator)
        cloud, *paths = cast(list[Any], axes.collections)
        seen = np.asarray(cloud.get_offsets())
        assert seen.shape == (40, 2)
        assert len(paths) == 2
        for i, path in enumerate(paths):
            assert isinstance(path, LineCollection)
            segments = np.asarray(path.get_segments())
            assert segments.shape == (6, 2, 2)
            np.testing.assert_array_equal(segments[1:, 0], segments[:-1, 1])
            # PCA in the plane of the data turns it: distances stay.
            points = np.concatenate([segments[:, 0], segments[-1:, 1]])
            truth = flat(latent.map(lambda z, i=i: z[:, i]))
            np.testing.assert_allclose(
                torch.cdist(torch.from_numpy(points).float(), torch.from_numpy(points).float()),
                torch.cdist(truth, truth),
                atol=1e-3,
            )
            start, end = cast(list[Any], axes.lines)[2 * i : 2 * i + 2]
            assert (start.get_color(), end.get_color()) == ("white", "black")
            np.testing.assert_array_equal(np.ravel(start.get_data()), points[0])
            np.testing.assert_array_equal(np.ravel(end.get_data()), points[-1])
            shades = path.to_rgba(cast(Any, path.get_array()))[:, 0]
            assert (np.diff(shades) < 0).all()  # darker with every step
        # The cloud lies in the same map: from its points to the walk's as in the representation.
        between = np.sort(np.linalg.norm(seen - points[0], axis=1))
        expected = torch.linalg.norm(background - truth[0], dim=1).sort().values
        np.testing.assert_allclose(between, expected, atol=1e-3)
        colours = {to_hex(color) for color in cloud.get_facecolors()}
        assert colours == set(PALETTE[:3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert_readable(figure)


def test_responses_are_bars_with_their_numbers() -> None:
    one = Response(
        torch.tensor([[0.25, 0.75, 0.0]]),
        torch.tensor([0.5]),
        torch.tensor([0.433]),
        torch.tensor([0.75]),
    )
    figure = plots.responses({"tilt": one, "residual": one}, ["a long name", "b", "$5"])
    assert [axes.get_title() for axes in figure.axes] == [
        f"{name}\nentropy 0.50   spread 0.43   kept 75%" for name in ("tilt", "residual")
    ]
    for axes in figure.axes:
        heights = [cast(Any, bar).get_height() for bar in axes.patches]
        np.testing.assert_allclose(heights, [0.25, 0.75, 0.0])
        names = [label.get_text() for label in axes.get_xticklabels()]
        assert names == ["a long name", "b", "$5"]
        assert axes.get_ylim()[1] > 0.75
    assert figure.get_suptitle() == "Answers when one part is drawn anew"


def test_responses_of_several_inputs_are_averaged() -> None:
    x = pictures(8)
    result = response(Halves(), x, "class", 30, torch.Generator().manual_seed(0))
    figure = plots.responses({"class": result}, ["0", "1", "2", "3"])
    heights = [cast(Any, bar).get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, result.histogram.mean(0), rtol=1e-6)
    assert sum(heights) == pytest.approx(1)
    assert f"entropy {result.entropy.mean():.2f}" in figure.axes[0].get_title()
    assert "mean of 8 inputs" in figure.get_suptitle()
    assert_readable(figure)


def test_concept_axes_have_a_row_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    y = torch.arange(60) % 3
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    codes = {"class": 30.0 * y.unsqueeze(1) + noise, "tilt": noise.reshape(60, 2, 1)}
    figure = plots.concept_axes(codes, y, ["a", "b", "c"])
    assert [axes.get_title() for axes in figure.axes] == ["class (PCA)", "tilt (PCA)"]
    overlaps = []
    for axes in figure.axes:
        (scatter,) = cast(list[Any], axes.collections)
        points = np.asarray(scatter.get_offsets())
        rows = points[:, 1].round().astype(int)
        assert points.shape == (60, 2)
        assert (np.abs(points[:, 1] - rows) <= 0.35).all()
        colours = [to_hex(color) for color in scatter.get_facecolors()]
        assert colours == [PALETTE[row] for row in rows]
        assert np.bincount(rows).tolist() == [20, 20, 20]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
        low, high = axes.get_ylim()
        assert low > high  # the first class on top
        ends = [(points[rows == k, 0].min(), points[rows == k, 0].max()) for k in range(3)]
        overlaps.append(any(a[0] < b[1] and b[0] < a[1] for a, b in pairwise(ends)))
    assert overlaps == [False, True]  # the class has a place for each, the tilt has not
    first, second = (axes.get_position().y0 for axes in figure.axes)
    assert first > second
    assert_readable(figure)


def ways(n: int = 5, pairs: int = 2) -> tuple[Lines, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    both = torch.rand(2, n, pairs, 3, 8, 8, generator=generator)
    confidence, realism = torch.rand(2, 2, n, pairs, generator=generator)
    return Lines(*both), confidence, 50 * realism - 100


def test_linearisation_has_two_rows_a_pair() -> None:
    lines, _, _ = ways()
    figure = plots.linearisation(lines)
    grid = drawn(figure)
    assert (len(grid), len(grid[0]), len(figure.axes)) == (4, 5, 1)
    for row in range(4):
        for j in range(5):
            np.testing.assert_array_equal(grid[row][j], shown(lines[row % 2][j, row // 2]))
    assert texts(figure)[:4] == ["latent", "representation"] * 2


def test_curves_of_a_pair_lie_beside_its_images() -> None:
    lines, confidence, realism = ways()
    figure: Any = plots.linearisation(lines, confidence, realism)
    sheet, *panels = figure.axes
    assert [panel.get_title() for panel in panels] == ["confidence", "", "realism", ""]
    for panel, (values, pair) in zip(
        panels, [(confidence, 0), (confidence, 1), (realism, 0), (realism, 1)], strict=True
    ):
        latent, representation = panel.lines
        np.testing.assert_array_equal(latent.get_ydata(), values[0, :, pair])
        np.testing.assert_array_equal(representation.get_ydata(), values[1, :, pair])
        np.testing.assert_allclose(latent.get_xdata(), [0, 0.25, 0.5, 0.75, 1])
        low, high = panel.get_ylim()
        assert low < values.min()
        assert high > values.max()
    assert_readable(figure)
    images = [image.get_window_extent() for image in sheet.images]
    for i, panel in enumerate(panels):
        box, pair = panel.get_window_extent(), i % 2
        first, last = images[10 * pair], images[10 * pair + 9]
        assert box.y1 == pytest.approx(first.y1, abs=0.1)
        assert box.y0 == pytest.approx(last.y0, abs=0.1)
        assert not any(box.overlaps(image) for image in images)
    assert first.width == pytest.approx(80)  # still whole pixels
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["latent", "representation"]
    colours = [handle.get_color() for handle in figure.legends[0].legend_handles]
    assert len(set(colours)) == 2
    assert all([line.get_color() for line in panel.lines] == colours for panel in panels)
    # Numbers of the ways stand below the last pair only.
    below = [panel.xaxis.get_major_ticks()[0].label1.get_visible() for panel in panels]
    assert below == [False, True] * 2
    assert not any(box.overlaps(image) for box in boxes_of(figure) for image in images)


@pytest.mark.parametrize("given", ["confidence", "realism"])
def test_either_curve_can_be_left_out(given: str) -> None:
    lines, confidence, _ = ways(pairs=1)
    figure = plots.linearisation(lines, **{given: confidence.numpy()})
    assert [axes.get_title() for axes in figure.axes] == ["", given]
    assert_readable(figure)


def test_a_flat_curve_is_drawn() -> None:
    lines, confidence, _ = ways()
    figure = plots.linearisation(lines, realism=torch.ones_like(confidence))
    low, high = figure.axes[1].get_ylim()
    assert low < 1 < high


def test_wrong_pictures_and_parts_are_explained() -> None:
    x = pictures(3)
    with pytest.raises(ValueError, match=r"x has 3 images, got 2 labels .* or None"):
        plots.transfer(Halves(), x, "class", row_labels=["a", "b"])
    with pytest.raises(ValueError, match="other has 2 images, got 3 labels"):
        plots.transfer(Halves(), x, "class", x[:2], column_labels=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"but for their number, got \(3, .* \(3, 1, 4, 8\)"):
        plots.transfer(Halves(), x, "class", x[:, :, :4])
    with pytest.raises(ValueError, match=r"same shape, got \(3, .* \(2, .*expand_as"):
        plots.interpolations(Halves(), x, x[:2], "class")
    with pytest.raises(ValueError, match="no part 'colour', the latent has class, nuisance"):
        plots.resampled_parts(Halves(), x, ["colour"])
    with pytest.raises(ValueError, match="at least one part, got none"):
        plots.interpolations(Halves(), x, x, [])
    with pytest.raises(ValueError, match="n >= 2 points, got 1"):
        plots.interpolations(Halves(), x, x, "class", n=1)
    with pytest.raises(ValueError, match=r"\(batch, channels, height, width\)"):
        plots.resampled_parts(Halves(), x.flatten(1), "class")


def test_wrong_walks_are_explained() -> None:
    x, y, names = pictures(2), torch.arange(20) % 2, ["a", "b"]
    background = torch.rand(20, 4)
    with pytest.raises(ValueError, match=r"gives 4 features, the background has 3\. Pass repr"):
        plots.walk(Halves(), x, flat, "nuisance", background[:, :3], y, names)
    with pytest.raises(ValueError, match=r"each of the 19 labels, got \{'background': 20\}"):
        plots.walk(Halves(), x, flat, "nuisance", background, y[1:], names)
    with pytest.raises(ValueError, match=r"0\.\.0, .* got 0\.\.1"):
        plots.walk(Halves(), x, flat, "nuisance", background, y, ["a"])
    with pytest.raises(ValueError, match="no density of the class part"):
        plots.walk(Halves(), x, flat, "class", background, y, names)


def test_wrong_numbers_are_explained() -> None:
    lines, confidence, _ = ways()
    message = r"realism must have the shape \(2, 5, 2\): .*got \(2, 2, 5\)\. Stack"
    with pytest.raises(ValueError, match=message):
        plots.linearisation(lines, realism=confidence.swapaxes(1, 2))
    with pytest.raises(ValueError, match=r"one shape, got \(5, 2, .* and \(4, 2, "):
        plots.linearisation(Lines(lines.latent, lines.representation[1:]))
    one = Response(torch.ones(1, 3), *torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"\(batch, 2\), .* got \{'tilt': \(1, 3\)\}"):
        plots.responses({"tilt": one}, ["a", "b"])
    with pytest.raises(ValueError, match=r"got \{\}"):
        plots.responses({}, ["a", "b"])
    with pytest.raises(ValueError, match=r"each of the 3 labels, got \{'class': 2\}"):
        plots.concept_axes({"class": torch.ones(2, 1)}, torch.tensor([0, 1, 1]), ["a", "b"])
    with as_a_user(), pytest.raises(ValueError, match=r"1, a line, or 2, the plane, got 3"):
        plots.embed(torch.rand(20, 4), n_dims=3)

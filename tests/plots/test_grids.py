import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from svae import plots
from svae.factorization import resample_nuisance, swap_nuisance
from svae.latent import Latent
from tests.plots.sheets import drawn, n_frames, shown, texts


def render(figure: Any) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 20)]


@pytest.mark.parametrize("shape", SHAPES)
def test_image_grid_holds_every_image_at_its_place(shape: tuple[int, ...]) -> None:
    images = torch.rand(2, 3, *shape) * 1.5 - 0.25
    grid = drawn(plots.image_grid(images, ["r0", "r1"], ["c0", "c1", "c2"], "title"))
    for row in range(2):
        for column in range(3):
            np.testing.assert_array_equal(grid[row][column], shown(images[row, column]))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 64, 64)])
def test_image_pixels_become_whole_squares_of_screen_pixels(shape: tuple[int, ...]) -> None:
    # Checkerboard noise, so that any interpolation or shift by a pixel shows.
    images = torch.randint(0, 2, (2, 2, *shape)).float()
    figure = plots.image_grid(images, ["a long label", "b"], title="title")
    picture = render(figure)
    axes = figure.axes[0]
    left, top = axes.get_xlim()[0], axes.get_ylim()[1]
    for image in axes.images:
        x0, x1, y1, y0 = (round(edge) for edge in image.get_extent())
        x0, x1, y0, y1 = x0 - int(left), x1 - int(left), y0 - int(top), y1 - int(top)
        scale = (x1 - x0) // shape[2]
        array = np.asarray(image.get_array())
        array = array if array.ndim == 3 else array[..., None].repeat(3, 2)
        expected = array.repeat(scale, 0).repeat(scale, 1) * 255
        np.testing.assert_array_equal(picture[y0:y1, x0:x1], expected)


def test_image_grid_reads_bytes_and_arrays() -> None:
    images = np.arange(2 * 64, dtype=np.uint8).reshape(1, 2, 1, 8, 8)
    grid = drawn(plots.image_grid(images))
    np.testing.assert_allclose(grid[0][1], images[0, 1, 0] / 255, rtol=1e-6)


def test_labels_are_written_and_do_not_touch() -> None:
    columns = ["airplane", "a very long automobile", "$5", "_x_"]
    figure = plots.image_grid(torch.rand(2, 4, 1, 8, 8), ["first", "second"], columns, "A title")
    render(figure)
    assert texts(figure) == ["first", "second", *columns, "A title"]
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if not text.get_rotation()]
    boxes += [image.get_window_extent() for image in figure.axes[0].images]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.containsx(x) for box in boxes for x in (box.x0, box.x1))
    assert all(figure.bbox.containsy(y) for box in boxes for y in (box.y0, box.y1))


def test_only_labels_that_would_touch_are_slanted() -> None:
    images = torch.rand(1, 2, 1, 8, 8)
    for names, rotation in ((["one", "two"], 0), (["a long name", "a longer name"], 40)):
        figure = plots.image_grid(images, column_labels=names)
        assert {text.get_rotation() for text in figure.axes[0].texts} == {rotation}


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstructions_lie_below_their_inputs(problem: Any, shape: tuple[int, ...]) -> None:
    factorization, x, _ = problem(shape)
    decoded = factorization.decode(factorization.encode(x))
    figure = plots.reconstructions(factorization, x[:15])  # two blocks of eight and seven
    grid = drawn(figure)
    assert [len(row) for row in grid] == [8] * 4
    assert grid[3][7] is None
    assert n_frames(figure) == 15
    for i in range(15):
        np.testing.assert_array_equal(grid[i // 8 * 2][i % 8], shown(x[i]))
        np.testing.assert_allclose(grid[i // 8 * 2 + 1][i % 8], shown(decoded[i]), atol=1e-6)


def test_class_samples_have_one_row_a_class() -> None:
    samples = torch.rand(4, 3, 1, 8, 8)
    figure = plots.class_samples(samples, ["a", "b", "c"])
    grid = drawn(figure)
    assert (len(grid), len(grid[0])) == (3, 4)
    np.testing.assert_array_equal(grid[2][1], shown(samples[1, 2]))
    assert texts(figure)[:3] == ["a", "b", "c"]


def test_nuisance_grid_shows_input_decoded_and_resamples(problem: Any) -> None:
    factorization, x, _ = problem()
    names = ["zero", "one", "two"]
    x = x[[2, 0, 1]]
    figure = plots.nuisance_grid(factorization, x, 4, torch.Generator().manual_seed(3), names)
    expected = resample_nuisance(factorization, x, 4, torch.Generator().manual_seed(3))
    decoded = factorization.decode(factorization.encode(x))
    grid = drawn(figure)
    assert (len(grid), len(grid[0]), n_frames(figure)) == (3, 6, 3)
    for row in range(3):
        np.testing.assert_array_equal(grid[row][0], shown(x[row]))
        np.testing.assert_allclose(grid[row][1], shown(decoded[row]), atol=1e-6)
        for j in range(4):
            np.testing.assert_allclose(grid[row][2 + j], shown(expected[j, row]), atol=1e-6)
    assert texts(figure)[:5] == ["read as two", "read as zero", "read as one", "input", "decoded"]


def test_swap_grid_takes_the_class_of_the_row(problem: Any) -> None:
    factorization, x, _ = problem((3, 8, 8))
    x = x[:3]
    figure = plots.swap_grid(factorization, x)
    grid = drawn(figure)
    assert (len(grid), len(grid[0]), n_frames(figure)) == (4, 4, 6)
    assert grid[0][0] is None
    for row in range(3):
        np.testing.assert_array_equal(grid[0][1 + row], shown(x[row]))
        np.testing.assert_array_equal(grid[1 + row][0], shown(x[row]))
        for column in range(3):
            pair = swap_nuisance(factorization, x[[row]], x[[column]])[0]
            np.testing.assert_allclose(grid[1 + row][1 + column], shown(pair), atol=1e-5)


def test_traversals_move_one_dim_and_sort_by_effect(problem: Any) -> None:
    factorization, x, _ = problem()
    factorization.directions = factorization.directions[[3, 0, 2, 1]] * 0.5
    factorization.directions[2] = 0  # a dim that the decoder ignores
    values = [-2.0, 0.0, 1.0]
    figure = plots.traversals(factorization, x[4], values=values)
    grid = drawn(figure)
    assert (len(grid), len(grid[0]), n_frames(figure)) == (4, 4, 1)
    np.testing.assert_array_equal(grid[0][0], shown(x[4]))
    latent = factorization.encode(x[[4]])
    for row, dim in enumerate([1, 3, 0, 2]):
        for column, value in enumerate(values):
            nuisance = latent.z_nuisance.clone()
            nuisance[:, dim] = value
            image = factorization.decode(Latent(latent.z_class, nuisance))[0]
            np.testing.assert_allclose(grid[row][1 + column], shown(image), atol=1e-5)
    spread = torch.tensor(values).var(correction=0).sqrt()
    effect = spread * factorization.directions[1].square().mean().sqrt()
    assert texts(figure)[0] == f"dim 1  effect {effect:.3f}"
    assert texts(figure)[3] == "dim 2  effect 0.000"
    assert texts(figure)[4:8] == ["input", "−2", "0", "+1"]  # noqa: RUF001


def test_traversals_show_twelve_of_many_dims_or_the_chosen(problem: Any) -> None:
    factorization, x, _ = problem(n_nuisance=16)
    figure = plots.traversals(factorization, x[:1])
    assert len(drawn(figure)) == 12
    assert "12 of 16" in texts(figure)[-1].replace("\n", " ")
    chosen = plots.traversals(factorization, x[0], dims=[5, 2])
    assert {text.split("  ")[0] for text in texts(chosen)[:2]} == {"dim 2", "dim 5"}


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (torch.rand(2, 3, 8, 8), ValueError, r"\(rows, columns, channels, height, width\)"),
        (torch.rand(2, 3, 2, 8, 8), ValueError, r"1 or 3 channels .* got \(2, 3, 2, 8, 8\)"),
        (torch.rand(0, 3, 1, 8, 8), ValueError, "none of them empty"),
        (torch.full((1, 1, 1, 2, 2), torch.nan), ValueError, "4 of 4 values are NaN"),
    ],
)
def test_wrong_images_are_explained(images: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        plots.image_grid(images)


def test_wrong_arguments_are_explained(problem: Any) -> None:
    factorization, x, _ = problem()
    with pytest.raises(ValueError, match="2 rows, got 1 row labels"):
        plots.image_grid(torch.rand(2, 1, 1, 8, 8), ["a"])
    with pytest.raises(ValueError, match="3 classes in dim 1, got 2 class names"):
        plots.class_samples(torch.rand(2, 3, 1, 8, 8), ["a", "b"])
    with pytest.raises(ValueError, match=r"\(batch, channels, height, width\)"):
        plots.reconstructions(factorization, x.flatten(1))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        plots.nuisance_grid(factorization, x, 0)
    with pytest.raises(ValueError, match="one image, got a batch of 2"):
        plots.traversals(factorization, x[:2])
    with pytest.raises(ValueError, match=r"0\.\.3 .* got \[4\]"):
        plots.traversals(factorization, x[0], dims=[4])
    with pytest.raises(ValueError, match="at least one number"):
        plots.traversals(factorization, x[0], values=[])

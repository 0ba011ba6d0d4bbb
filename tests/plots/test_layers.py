import numpy as np
import pytest
import torch

from svae import plots
from svae.factorization import reconstruct, resample_nuisance
from svae.metrics import Estimate
from svae.profiling import LayerProfile
from tests.plots.conftest import Problem
from tests.plots.sheets import drawn, n_frames, shown, texts


def a_profile(layers: tuple[str, ...]) -> LayerProfile:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.05, value + 0.05)

    rows = {
        layer: {
            "kept": estimate(0.9 - 0.1 * i),
            "variance_explained": estimate(0.1 * i),
            "information": estimate(9.0 - i),
            "fibre_loss": estimate(0.3),
            "fibre_loss_reconstructed": estimate(0.2),
            "fibre_loss_nearest": estimate(0.4),
            "diversity": estimate(0.5),
        }
        for i, layer in enumerate(layers)
    }
    return LayerProfile(layers, estimate(0.95), rows, noise=0.05)


def test_a_row_for_each_layer_of_each_input(problem: Problem) -> None:
    closed_form, images, _ = problem()
    bridges = {"first": closed_form, "last": closed_form}
    figure = plots.layer_invariances(bridges, images[:2], n=3, seed=4)
    grid = drawn(figure)
    again = resample_nuisance(closed_form, images[:2], 3, torch.Generator().manual_seed(4))
    for i in range(2):
        for k in range(2):
            row = grid[2 * i + k]
            np.testing.assert_allclose(row[0], shown(images[i]))
            np.testing.assert_allclose(
                row[1], shown(reconstruct(closed_form, images[:2])[i]), atol=1e-6
            )
            for j in range(3):
                np.testing.assert_allclose(row[2 + j], shown(again[j, i]), atol=1e-6)
    assert n_frames(figure) == 4
    assert texts(figure)[:4] == ["first", "last", "first", "last"]
    with pytest.raises(ValueError, match="no layers to show"):
        plots.layer_invariances({}, images)


@pytest.mark.parametrize("layers", [("a", "b"), ("features.conv.1", "features.conv.2", "logits")])
def test_a_profile_shows_each_number_of_each_layer(layers: tuple[str, ...]) -> None:
    profile = a_profile(layers)
    figure = plots.profile(profile)
    kept, knows, fibre, nats = figure.axes
    assert [label.get_text() for label in fibre.get_xticklabels()] == list(layers)
    lines = [np.asarray(line.get_ydata()) for line in kept.get_lines()]
    wanted = [profile.rows[layer]["kept"].value for layer in layers]
    assert any(np.allclose(line, wanted) for line in lines if len(line) == len(layers))
    assert np.allclose(
        nats.get_lines()[0].get_ydata(),
        [profile.rows[layer]["information"].value for layer in layers],
    )
    assert knows.get_ylabel() == "left open"
    legend = fibre.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 3


def test_versions_lie_side_by_side_with_their_reading(problem: Problem) -> None:
    closed_form, images, _ = problem()
    versions = {"clean": images[:1], "attacked": images[1:2]}
    names = ("low", "middle", "high")
    figure = plots.perturbed({"first": closed_form}, versions, closed_form.predict, names, n=2)
    (row,) = drawn(figure)
    np.testing.assert_allclose(row[0], shown(images[0]))
    np.testing.assert_allclose(row[3], shown(images[1]))
    again = resample_nuisance(closed_form, images[1:2], 2, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(row[5], shown(again[1, 0]), atol=1e-6)
    assert n_frames(figure) == 2
    assert "first: low, middle" in texts(figure)
    assert {"clean: low", "attacked: middle"} <= set(texts(figure))
    with pytest.raises(ValueError, match="nothing to show"):
        plots.perturbed({}, versions, closed_form.predict, names)
    with pytest.raises(ValueError, match="a version is one image"):
        plots.perturbed({"a": closed_form}, {"b": images}, closed_form.predict, names)


def test_shares_of_concepts_are_a_line_each() -> None:
    shares = {
        layer: {
            "digit": Estimate(1 - 0.1 * i, 0.9 - 0.1 * i, 1.1 - 0.1 * i),
            "slant": Estimate(0.5 - 0.2 * i, 0.4 - 0.2 * i, 0.6 - 0.2 * i),
        }
        for i, layer in enumerate(("features.first", "features.second", "logits"))
    }
    figure = plots.layer_shares(shares)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(shares)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["digit", "slant"]
    for container, concept in zip(axes.containers, ("digit", "slant"), strict=True):
        line = container[0]
        np.testing.assert_allclose(
            np.asarray(line.get_ydata()), [shares[layer][concept].value for layer in shares]
        )
    with pytest.raises(ValueError, match="no layers"):
        plots.layer_shares({})
    with pytest.raises(ValueError, match="the same concepts"):
        plots.layer_shares({"a": shares["logits"], "b": {}})

"""From a network and inputs to what its layers ignore."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import svae
from svae import explaining, profiling
from svae.explaining import ExplainSettings, InputScaling

QUICK = ExplainSettings(n_code=8, autoencoder_steps=30, bridge_steps=15)
TRAINER: dict[str, Any] = {"enable_progress_bar": False, "compile": False}


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 12), nn.Linear(12, 10)
    )


def trained(data: svae.data.ArrayData, scale: float = 1.0) -> nn.Sequential:
    """A network of inputs times ``scale`` that answers most labels right."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 10)
    net = nn.Sequential(nn.Flatten(), layer)
    x, y = data.train.floats(), data.train.marked
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(100):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer.weight.data /= scale
    return net


@pytest.fixture(scope="module")
def data() -> svae.data.ArrayData:
    return svae.data.Digits()


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_one_call_explains_a_layer_and_another_one_shares_the_autoencoder(
    data: svae.data.ArrayData, tmp_path: Path
) -> None:
    frozen = svae.Frozen(network(), "1", x_shape=(1, 8, 8))
    before = frozen.fingerprint
    call = {"settings": QUICK, "cache": tmp_path, **TRAINER}
    bridge = svae.explain(frozen, data, **call)
    x = data.test.floats(limit=5)
    assert svae.resample_nuisance(bridge, x, 3).shape == (3, 5, 1, 8, 8)
    assert frozen.fingerprint == before
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    other = svae.explain(frozen.at("3"), data, **call)
    again = svae.explain(frozen, data, **call)
    for name, time in kept.items():
        assert (tmp_path / name).stat().st_mtime_ns == time
    assert sum(path.name.startswith("autoencoder") for path in tmp_path.iterdir()) == 1
    assert torch.equal(again.encode(x).z_nuisance, bridge.encode(x).z_nuisance)
    assert torch.equal(other.code(x), bridge.code(x))


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_what_is_kept_is_named_by_all_that_it_depends_on(
    data: svae.data.ArrayData, tmp_path: Path
) -> None:
    frozen = svae.Frozen(network(), "1", x_shape=(1, 8, 8))
    first = explaining.content(frozen, data, QUICK, 0)
    changed = svae.Frozen(nn.Sequential(*network(), nn.Linear(10, 10)), "1", x_shape=(1, 8, 8))
    scaled = svae.Frozen(network(), "1", x_shape=(1, 8, 8), preprocess=nn.Tanh())
    boxes = [
        svae.Frozen.black_box(lambda x, k=k: np.eye(10)[np.full(len(x), k)], (1, 8, 8))
        for k in range(2)
    ]
    one, other = (explaining.content(box, data, QUICK, 0) for box in boxes)
    assert one != other
    others = [
        explaining.content(changed, data, QUICK, 0),
        explaining.content(scaled, data, QUICK, 0),
        explaining.content(frozen, svae.data.Digits(seed=3), QUICK, 0),
        explaining.content(frozen, data, ExplainSettings(n_code=9), 0),
        explaining.content(frozen, data, QUICK, 1),
        explaining.content(frozen, data, QUICK, 0, nn.Linear(2, 2)),
    ]
    assert all(other != first for other in others)
    assert explaining.content(frozen, data, QUICK, 0) == first


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_other_flows_share_the_autoencoder(data: svae.data.ArrayData, tmp_path: Path) -> None:
    frozen = svae.Frozen(network(), "1", x_shape=(1, 8, 8))
    for changes in ({}, {"bridge_steps": 3, "noise": 0.2, "fibre_weight": 7.0}):
        settings = dataclasses.replace(QUICK, **changes)
        explaining.fit_autoencoder(frozen, data, settings=settings, cache=tmp_path, **TRAINER)
    assert len(list(tmp_path.iterdir())) == 1
    for changes in ({"n_code": 9}, {"perceptual_weight": 0.3}, {"adversarial_weight": 0.1}):
        other = dataclasses.replace(QUICK, **changes)
        assert other.of_autoencoder != QUICK.of_autoencoder


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_a_damaged_cache_stops_nobody(
    data: svae.data.ArrayData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frozen = svae.Frozen(network(), "1", x_shape=(1, 8, 8))
    first = explaining.fit_autoencoder(frozen, data, settings=QUICK, cache=tmp_path, **TRAINER)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    again = explaining.fit_autoencoder(frozen, data, settings=QUICK, cache=tmp_path, **TRAINER)
    assert "cannot be read" in caplog.text
    x = data.test.floats(limit=5)
    assert torch.allclose(again.encode(x), first.encode(x), atol=1e-4)


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_a_profile_has_a_row_for_each_layer(data: svae.data.ArrayData, tmp_path: Path) -> None:
    frozen = svae.Frozen(network(), "1", x_shape=(1, 8, 8))
    call = {"settings": QUICK, "cache": tmp_path, "n_images": 50, **TRAINER}
    profile = profiling.layer_profile(frozen, data, ("1", "4"), **call)
    assert profile.layers == ("1", "4")
    assert set(profile.rows["1"]) == set(profile.rows["4"])
    assert profile.table().count("\n") == 4
    flat = profile.flat()
    assert flat["1.kept_low"] <= flat["1.kept"] <= flat["1.kept_high"]
    with pytest.raises(ValueError, match="'7' is no layer"):
        profiling.layer_profile(frozen, data, ("1", "7"), **call)


def test_layers_go_from_the_input_to_the_logits() -> None:
    frozen = svae.Frozen(network(), "1", x_shape=(1, 8, 8))
    x = torch.rand(2, 1, 8, 8)
    # Flatten hands on what it gets.
    assert profiling.sensible_layers(frozen, x) == ("0", "1", "3", "4")
    assert profiling.sensible_layers(frozen, x, n=2) == ("0", "4")
    nested = svae.Frozen(nn.Sequential(network()[:3], network()[3:]), "0", x_shape=(1, 8, 8))
    assert profiling.sensible_layers(nested, x) == ("0.0", "0.1", "1.3", "1.4")


def test_a_network_that_wants_other_numbers_is_noticed(data: svae.data.ArrayData) -> None:
    net = trained(data, scale=255.0)
    # The bias of a network of larger numbers drowns what is left of the input.
    cast(nn.Linear, net[1]).bias.data.copy_(torch.arange(10.0))
    frozen = svae.Frozen(net, "1", x_shape=(1, 8, 8))

    class Times255(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 255 * x

    with pytest.warns(InputScaling, match=r"for 255 x it would be .*preprocess"):
        explaining.check_scaling(frozen, data)
    with pytest.warns(InputScaling, match="as by chance"):
        explaining.check_scaling(svae.Frozen(network(), "1", x_shape=(1, 8, 8)), data)
    right = svae.Frozen(trained(data), "1", x_shape=(1, 8, 8))
    explaining.check_scaling(right, data)
    declared = svae.Frozen(trained(data, 255.0), "1", x_shape=(1, 8, 8), preprocess=Times255())
    explaining.check_scaling(declared, data)
    x = data.test.floats(limit=5)
    assert torch.allclose(declared.head(declared.representation(x)), declared.predict(x))


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_the_shape_of_inputs_is_taken_from_the_data(
    data: svae.data.ArrayData, tmp_path: Path
) -> None:
    frozen = svae.Frozen(network(), "3")
    bridge = svae.explain(frozen, data, settings=QUICK, cache=tmp_path, **TRAINER)
    assert bridge.encode(data.test.floats(limit=2)).z_class.shape == (2, 12)


def test_inputs_that_the_network_does_not_take_are_explained(data: svae.data.ArrayData) -> None:
    colour = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(ValueError, match=r"does not take .* shape \(1, 8, 8\).*Grey pictures"):
        svae.explain(svae.Frozen(colour, "0"), data)
    with pytest.raises(ValueError, match=r"max_epochs cannot be given: .*bridge_steps"):
        explaining.fit_bridge(svae.Frozen(network(), "1"), data, max_epochs=1)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="start at 1, weights at 0"):
        ExplainSettings(bridge_steps=0)


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_a_black_box_is_explained_by_likelihood_alone(
    data: svae.data.ArrayData, tmp_path: Path
) -> None:
    net = trained(data)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(x)).softmax(1).numpy()

    frozen = svae.Frozen.black_box(predict, x_shape=(1, 8, 8))
    bridge = svae.explain(frozen, data, settings=QUICK, cache=tmp_path, **TRAINER)
    x = data.test.floats(limit=5)
    assert bridge.encode(x).z_class.shape == (5, 10)
    assert svae.resample_nuisance(bridge, x, 2).shape == (2, 5, 1, 8, 8)


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_rows_of_a_table_are_explained(tmp_path: Path) -> None:
    x = torch.randn(6000, 5, generator=torch.Generator().manual_seed(0))
    sets = [svae.data.ArraySet(part, (part[:, 0] > 0).long()) for part in x.split(2000)]
    data = svae.data.ArrayData(*sets, class_names=("low", "high"), bounded=False)
    net = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    weight = torch.zeros(3, 5)
    weight[0, 0] = weight[1, 1] = weight[2, 2] = 1.0  # reads the first three numbers
    cast(nn.Linear, net[0]).weight.data.copy_(weight)
    settings = ExplainSettings(n_code=64, autoencoder_steps=200, bridge_steps=200)
    frozen = svae.Frozen(net, "0", x_shape=(5,))
    bridge = svae.explain(frozen, data, settings=settings, cache=tmp_path, **TRAINER)
    assert bridge.n_code == 5
    rows = data.test.floats(limit=50)
    assert float((svae.reconstruct(bridge, rows) - rows).detach().std()) < 0.2
    spread = svae.resample_nuisance(bridge, rows, 50).std(0).mean(0)
    assert float(spread[:3].max()) < 0.5 * float(spread[3:].min())

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import svae
from svae import Factorization, Frozen, Latent
from svae.bridges import (
    Attribute,
    Classes,
    ConceptBridge,
    ConceptObjective,
    ImageDecoder,
    Pairs,
    Reconstruction,
    Together,
)
from svae.bridges.building import prepare
from svae.judge import Judge
from tests.bridges import toys
from tests.unchecked import as_a_user

SMALL = {"n_blocks": 3, "hidden": (32,)}


def fitted(bridge: ConceptBridge, epochs: int = 6, **settings: Any) -> ConceptBridge:
    svae.fit(bridge, toys.data(), max_epochs=epochs, enable_progress_bar=False, **settings)
    return bridge


@pytest.fixture(scope="module")
def bridge() -> ConceptBridge:
    torch.manual_seed(0)
    concepts = [Attribute("shade", column=0), Classes("digit")]
    return fitted(ConceptBridge(toys.frozen(), concepts, **SMALL), epochs=8)


@pytest.fixture
def x() -> Tensor:
    return toys.examples(300, 2).x


def test_a_bridge_is_a_factorization_with_the_class_first(
    bridge: ConceptBridge, x: Tensor
) -> None:
    assert isinstance(bridge, Factorization)
    assert bridge.parts == ("digit", "shade", "residual")
    assert bridge.answer_concept == "digit"
    dims = bridge.dims
    assert dims["digit"] == 2  # of three answers there are two differences
    assert dims["shade"] >= 1
    assert sum(dims.values()) == 6
    latent = bridge.encode(x)
    assert latent.z_class.shape == (300, dims["digit"] + dims["shade"])
    assert latent.z_nuisance.shape == (300, dims["residual"])


def test_the_way_there_and_back_is_exact(bridge: ConceptBridge, x: Tensor) -> None:
    representation = bridge.frozen.representation(x)
    assert bridge.round_trip_error(representation) <= 1e-4
    latent = bridge.to_latent(representation)
    assert torch.allclose(svae.read(bridge, latent), bridge.predict(x), atol=1e-3)
    # And from the other side.
    drawn = bridge.draw(50)
    again = bridge.to_latent(bridge.to_representation(drawn))
    for part, same in zip(drawn, again, strict=True):
        assert torch.allclose(part, same, atol=1e-3)


def test_the_density_is_that_of_the_whole_map(bridge: ConceptBridge, x: Tensor) -> None:
    # Against the Jacobian by autograd.
    _, coordinates = bridge.built()
    value = coordinates(bridge.frozen.representation(x[:4]))[0]
    jacobian = torch.autograd.functional.jacobian(
        lambda row: bridge.through(row.unsqueeze(0))[0][0], value[0]
    )
    assert isinstance(jacobian, Tensor)
    z, log_det = bridge.through(value[:1])
    assert torch.allclose(torch.linalg.slogdet(jacobian).logabsdet, log_det[0], atol=1e-3)
    parts = bridge.split(z)
    wanted = sum(bridge.block(name).log_prob(part) for name, part in parts.items()) + log_det
    assert torch.allclose(bridge.log_prob(bridge.frozen.representation(x[:1])), wanted)


def test_the_residual_leaves_the_answer(bridge: ConceptBridge, x: Tensor) -> None:
    found = svae.editing.response(bridge, x, "residual", n=20)
    assert float(found.kept.mean()) >= 0.97
    assert float(found.entropy.mean()) <= 0.1
    other = svae.editing.response(bridge, x, "shade", n=20)
    assert float(other.kept.mean()) >= 0.97


def test_the_class_part_decides_the_answer(bridge: ConceptBridge, x: Tensor) -> None:
    found = svae.editing.response(bridge, x, "digit", n=200)
    assert float(found.entropy.mean()) >= 0.85
    y = torch.tensor([0, 1, 2] * 20)
    answered = svae.read(bridge, bridge.draw(60, y)).argmax(-1)
    assert float((answered == y).float().mean()) >= 0.9


def test_a_swapped_concept_arrives_and_the_others_stay(bridge: ConceptBridge, x: Tensor) -> None:
    latent, source = bridge.encode(x), bridge.encode(x.flip(0))
    moved = bridge.with_part(latent, "shade", bridge.part(source, "shade"))
    pixels = bridge.to_representation(moved) @ bridge.frozen.model.mix.weight  # pyright: ignore
    shade = toys.examples(300, 2).factors[:, 0]  # pyright: ignore
    assert float(((pixels[:, 2] > 0).float() == shade.flip(0)).float().mean()) >= 0.95
    own = bridge.predict(x).argmax(-1)
    assert float((svae.read(bridge, moved).argmax(-1) == own).float().mean()) >= 0.97


def test_resampling_draws_from_a_standard_normal(bridge: ConceptBridge, x: Tensor) -> None:
    latent = bridge.encode(x[:3])
    generator = torch.Generator().manual_seed(0)
    drawn = bridge.sample_nuisance(latent, 5000, generator)
    assert drawn.shape == (5000, 3, bridge.dims["residual"])
    assert torch.allclose(drawn.mean((0, 1)), torch.zeros(drawn.shape[-1]), atol=0.05)
    assert torch.allclose(drawn.std((0, 1)), torch.ones(drawn.shape[-1]), atol=0.05)
    again = bridge.sample_nuisance(latent, 5000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bridge.sample_nuisance(latent, 0)


def test_fitting_raises_the_likelihood_and_leaves_the_network(x: Tensor) -> None:
    frozen = toys.frozen()
    before = frozen.fingerprint
    bridge = ConceptBridge(frozen, Classes(), **SMALL)
    prepare(bridge, toys.data().train)
    representation = frozen.representation(x)
    first = float(bridge.eval().log_prob(representation).detach().mean())
    fitted(bridge, 3)
    assert float(bridge.log_prob(representation).detach().mean()) > first + 0.5
    assert frozen.fingerprint == before
    assert all(p.grad is None for p in frozen.parameters())


def test_same_seed_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        bridge = fitted(ConceptBridge(toys.frozen(), Classes(), **SMALL), 1, seed=5)
        weights.append(torch.cat([p.detach().flatten() for p in bridge.parameters()]))
    assert torch.equal(*weights)


def test_a_start_along_the_answer_keeps_it_before_the_first_step(x: Tensor) -> None:
    bridge = ConceptBridge(toys.frozen(), Classes(), dims={"class": 2}, **SMALL)
    prepare(bridge, toys.data().train)
    found = svae.editing.response(bridge.eval(), x, "residual", n=5)
    assert float(found.kept.mean()) >= 0.999  # the answer is linear, so two directions are all


def third_feature(n: int, differ: bool) -> tuple[Tensor, Tensor]:
    """Pairs that share feature 3 alone, or differ in it alone."""
    first, other = toys.examples(n).x, toys.examples(n, 7).x
    second = (first if differ else other).clone()
    second[:, 3] = (other if differ else first)[:, 3]
    return first, second


@pytest.mark.parametrize("differ", [False, True])
def test_the_exchange_term_is_the_error_of_an_exchange(differ: bool) -> None:
    torch.manual_seed(0)
    first, second = third_feature(50, differ)
    concept = Pairs("three", first, second, differ=differ)
    bridge = ConceptBridge(toys.frozen(), concept, dims={"three": 1}, **SMALL)
    bank = prepare(bridge, toys.examples(200)).banks[0]
    for parameter in bridge.parameters():  # a flow that does something
        parameter.data += 0.1 * torch.randn_like(parameter)
    objective = ConceptObjective(noise=0.0, answer_weight=0.0, exchange_weight=3.0).eval()
    representation, none = bank.first, torch.zeros(50, 0, dtype=torch.int64)
    loss, found = objective(bridge, representation, none, [(bank, bank.first, bank.second)])
    mixed = bridge.with_part(
        bridge.to_latent(bank.first),
        "three",
        bridge.part(bridge.to_latent(bank.second), "three"),
    )
    kind = "differ" if differ else "share"
    wanted = bank.second if differ else bank.first
    _, coordinates = bridge.built()
    there, here = coordinates(bridge.to_representation(mixed))[0], coordinates(wanted)[0]
    error = (1 + (there - here).square() / 0.01).log().sum(1).mean()
    assert float(error.detach()) > 0.1
    assert torch.allclose(found[f"exchange_three_{kind}"], error, rtol=1e-3)
    plain = found["nll"] + found[f"pairs_three_{kind}"]
    assert torch.allclose(loss, plain + 3.0 * error, rtol=1e-3)


def test_an_exchange_that_is_asked_for_is_more_exact() -> None:
    errors = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        concept = Pairs("three", *third_feature(2000, True), differ=True)
        bridge = ConceptBridge(toys.frozen(), concept, dims={"three": 1}, **SMALL)
        fitted(bridge, 4, objective=ConceptObjective(exchange_weight=weight))
        x, other = third_feature(300, True)
        latent, source = bridge.encode(x), bridge.encode(other)
        mixed = bridge.with_part(latent, "three", bridge.part(source, "three"))
        reached = bridge.to_representation(mixed)
        wanted = bridge.frozen.representation(other)
        errors.append(float((reached - wanted).square().mean().detach()))
    assert errors[1] < 0.5 * errors[0], errors


def test_pairs_that_share_and_pairs_that_differ_find_the_same_concept(x: Tensor) -> None:
    train = toys.examples(2000).x
    other = train[torch.randperm(2000)]
    share = other.clone()
    share[:, 3] = train[:, 3]  # only feature 3 is shared
    differ = train.clone()
    differ[:, 3] = other[:, 3]  # only feature 3 differs
    kinds = Pairs("three", train, share), Pairs("three", train, differ, differ=True)
    for concept in (*kinds, Together(kinds)):
        torch.manual_seed(0)
        bridge = ConceptBridge(toys.frozen(), concept, dims={"three": 1}, **SMALL)
        fitted(bridge, 6)
        code = bridge.encode(x).z_class[:, 0].detach()
        correlation = torch.corrcoef(torch.stack([code, x[:, 3]]))[0, 1]
        assert abs(float(correlation)) >= 0.8
        assert bridge.answer_concept is None


def test_without_concepts_all_is_residual(x: Tensor) -> None:
    bridge = fitted(ConceptBridge(toys.frozen(), **SMALL), 4)
    assert bridge.parts == ("residual",)
    with pytest.raises(ValueError, match="no concept is the class"):
        bridge.draw(3, torch.arange(3))
    assert bridge.encode(x).z_class.shape == (300, 0)
    drawn = bridge.to_representation(bridge.draw(4000))
    real = bridge.frozen.representation(toys.examples(4000, 3).x)
    assert torch.allclose(drawn.T.cov(), real.T.cov(), atol=0.12)


def test_a_large_representation_keeps_its_remainder(x: Tensor) -> None:
    bridge = ConceptBridge(toys.frozen(), Classes(), max_features=5, max_components=4, **SMALL)
    fitted(bridge, 2)
    assert bridge.round_trip_error(bridge.frozen.representation(x)) <= 1e-4
    latent = bridge.encode(x)
    n = bridge.dims["residual"]
    assert latent.z_nuisance.shape[1] == n + 6
    drawn = bridge.sample_nuisance(latent, 3)
    assert torch.equal(drawn[..., n:], latent.z_nuisance[:, n:].expand(3, 300, 6))
    assert torch.equal(bridge.draw(2).z_nuisance[:, n:], torch.zeros(2, 6))


def test_feature_maps_are_taken_as_they_are() -> None:
    data = svae.data.Digits()
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 10))
    bridge = ConceptBridge(Frozen(model, "1"), Classes(), **SMALL)
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    x = data.test.floats(limit=9)
    assert bridge.to_representation(bridge.encode(x)).shape == (9, 4, 4, 4)
    assert torch.allclose(svae.read(bridge, bridge.encode(x)), bridge.predict(x), atol=1e-3)


def test_a_decoder_shows_what_a_bridge_changes() -> None:
    data = svae.data.Digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10))
    frozen = Frozen(model, "2")
    bridge = ConceptBridge(frozen, Classes(), **SMALL)
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    x = data.test.floats(limit=30)
    with pytest.raises(ValueError, match="no decoder for this representation"):
        svae.resample_nuisance(bridge, x)
    reconstruction = Reconstruction(frozen, width=8)
    before = frozen.fingerprint
    svae.fit(reconstruction, data, max_epochs=30, enable_progress_bar=False)
    bridge.decoder = reconstruction.decoder
    error = (svae.reconstruct(bridge, x) - x).detach().abs().mean()
    assert float(error) <= 0.6 * float((x - data.train.floats().mean(0)).abs().mean())
    assert svae.resample_nuisance(bridge, x, 2).shape == (2, 30, 1, 8, 8)
    assert frozen.fingerprint == before


def test_an_autoencoder_brings_its_decoder() -> None:
    data = svae.data.Digits()
    autoencoder = svae.bridges.Autoencoder((1, 8, 8), n_code=12, width=8)
    svae.fit(autoencoder, data, max_epochs=15, enable_progress_bar=False)
    x = data.test.floats(limit=30)
    assert float((autoencoder.decode(autoencoder.encode(x)) - x).detach().abs().mean()) <= 0.13
    bridge = ConceptBridge(Frozen.autoencoder(autoencoder), **SMALL)
    svae.fit(bridge, data, max_epochs=2, enable_progress_bar=False)
    assert bridge.sample(n=5).shape == (5, 1, 1, 8, 8)
    assert torch.allclose(
        svae.reconstruct(bridge, x), autoencoder.decode(autoencoder.encode(x)), atol=1e-3
    )


def test_a_sketch_defines_a_concept_of_an_autoencoder() -> None:
    from svae.sketches import Sketch, Slant

    data = svae.data.Digits()
    autoencoder = svae.bridges.Autoencoder((1, 8, 8), n_code=12, width=8)
    svae.fit(autoencoder, data, max_epochs=15, enable_progress_bar=False)
    sketch = Sketch("slant", Slant(-25.0), Slant(25.0))
    concept = svae.bridges.Sketched(sketch, n_pictures=100)
    bridge = ConceptBridge(Frozen.autoencoder(autoencoder), concept, dims={"slant": 2}, **SMALL)
    svae.fit(bridge, data, max_epochs=4, enable_progress_bar=False)
    # The two values are told apart along the concept's dims, and hardly along the residual.
    one, other = (bridge.encode(side) for side in sketch.render(data.test.floats(limit=100)))
    moved = [(a - b).detach().square().mean() for a, b in zip(one, other, strict=True)]
    assert moved[0] > 2 * moved[1]


def test_saved_and_loaded_gives_the_same(bridge: ConceptBridge, x: Tensor, tmp_path: Path) -> None:
    bridge.save(tmp_path)
    again = svae.load(tmp_path, frozen=toys.frozen())
    assert not again.training
    assert again.parts == bridge.parts
    for part, same in zip(bridge.encode(x), again.encode(x), strict=True):
        assert torch.equal(part, same)
    drawn = bridge.draw(5, torch.arange(5) % 3, torch.Generator().manual_seed(0))
    same = again.draw(5, torch.arange(5) % 3, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.z_class, same.z_class)
    with pytest.raises(ValueError, match="was loaded, and how the concept 'digit' was defined"):
        fitted(again, 1)


@pytest.mark.filterwarnings("ignore::svae.bridges.UnitsDropped")
def test_what_is_ours_needs_not_be_given_again(tmp_path: Path) -> None:
    data = svae.data.Digits()
    judge = Judge((1, 8, 8), 10, n_features=16).eval()
    frozen = Frozen(judge, "trunk")
    bridge = ConceptBridge(frozen, Classes(), decoder=ImageDecoder((1, 8, 8), (16,), 8), **SMALL)
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    bridge.save(tmp_path)
    again = svae.load(tmp_path)
    x = data.test.floats(limit=9)
    assert torch.equal(svae.reconstruct(again, x), svae.reconstruct(bridge, x))
    assert torch.equal(again.predict(x), judge(x))


def test_another_network_is_refused(bridge: ConceptBridge, tmp_path: Path) -> None:
    bridge.save(tmp_path)
    with pytest.raises(ValueError, match=r"give it again, svae.load"):
        svae.load(tmp_path)
    other = Frozen(toys.Reader(seed=1), "mix", x_shape=(6,))
    with pytest.raises(ValueError, match="was fitted to another frozen network: fingerprint"):
        svae.load(tmp_path, frozen=other)


def test_a_damaged_file_is_named(bridge: ConceptBridge, tmp_path: Path) -> None:
    bridge.save(tmp_path)
    path = tmp_path / "model.json"
    config = json.loads(path.read_text())
    del config["sizes"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not what .save\(folder\) writes .*sizes"):
        svae.load(tmp_path, frozen=toys.frozen())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    bridge.save(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable file of a bridge"):
        svae.load(tmp_path / "b", frozen=toys.frozen())


def test_half_precision_is_computed_in_single(bridge: ConceptBridge, x: Tensor) -> None:
    representation = bridge.frozen.representation(x)
    with torch.autocast("cpu", torch.bfloat16):
        density = bridge.log_prob(representation)
    assert density.dtype == torch.float32
    assert torch.allclose(density, bridge.log_prob(representation), atol=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concepts": [Classes("a"), Attribute("a")]}, "names of their own"),
        ({"concepts": [Classes("residual")]}, "other than 'residual'"),
        ({"concepts": [Classes("a"), Classes("b")]}, "only one concept can be the class"),
        ({"concepts": Classes("a"), "dims": {"b": 2}}, "dims must give numbers .* among"),
        ({"concepts": Classes("a"), "dims": {"a": -2}}, "at least 0"),
    ],
)
def test_concepts_that_clash_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConceptBridge(toys.frozen(), **settings)


def test_only_frozen_networks_are_explained() -> None:
    with as_a_user(), pytest.raises(TypeError, match=r"must be a svae.Frozen, got Reader"):
        ConceptBridge(toys.Reader())  # pyright: ignore[reportArgumentType]


def test_more_dims_than_the_representation_has_are_refused() -> None:
    bridge = ConceptBridge(toys.frozen(), Classes(), dims={"class": 6}, **SMALL)
    with pytest.raises(
        ValueError, match="leave nothing to the residual: the representation has 6"
    ):
        fitted(bridge)


def test_a_concept_with_one_value_is_refused() -> None:
    concept = Attribute("always", values=lambda factors: torch.zeros(len(factors)))
    with pytest.raises(ValueError, match=r"'always' has 1 value.*what never changes"):
        fitted(ConceptBridge(toys.frozen(), concept, **SMALL))


def test_a_bridge_that_is_not_fitted_says_so(x: Tensor) -> None:
    bridge = ConceptBridge(toys.frozen(), Classes())
    for call in (lambda: bridge.encode(x), lambda: bridge.dims, lambda: bridge.draw(3)):
        with pytest.raises(ValueError, match="has not been fitted"):
            call()


def test_parts_and_widths_that_do_not_fit_are_refused(bridge: ConceptBridge, x: Tensor) -> None:
    latent = bridge.encode(x[:3])
    with pytest.raises(ValueError, match="no part 'hue', the bridge has digit, shade, residual"):
        bridge.part(latent, "hue")
    with as_a_user(), pytest.raises(ValueError, match=r"part 'shade' has shape .* got \(3, 9\)"):
        bridge.with_part(latent, "shade", torch.zeros(3, 9))
    with pytest.raises(ValueError, match=r"the latent has parts of shape .*resample_nuisance"):
        svae.read(bridge, Latent(latent.z_class, latent.z_nuisance[:, :1].expand(3, 7)))


def test_weights_of_the_objective_are_not_negative() -> None:
    with pytest.raises(ValueError, match=r"at least 0, got 0.02, -1.0, 1.0, 1.0"):
        ConceptObjective(answer_weight=-1.0)
    with pytest.raises(ValueError, match="answer_share must be above 0 and at most 1, got 0"):
        ConceptObjective(answer_share=0.0)


def test_the_decoder_is_built_for_the_data() -> None:
    autoencoder = svae.bridges.Autoencoder((1, 16, 16))
    with pytest.raises(ValueError, match=r"built for x of shape \(1, 16, 16\), the data have"):
        svae.fit(autoencoder, svae.data.Digits(), max_steps=1)


def test_a_rare_unit_is_not_amplified() -> None:
    # One training example in a thousand moves unit 5, and none of the first batch.
    train = toys.examples(3000)
    x = train.x.clone()
    x[:, 5] = 0.0
    x[::1000, 5] = 3.0
    frozen = Frozen(nn.Sequential(nn.Identity(), toys.Reader()), "0", x_shape=(6,))
    bridge = ConceptBridge(frozen, Classes(), **SMALL)
    prepare(bridge, svae.data.ArraySet(x, train.y))
    flow, coordinates = bridge.built()
    value = coordinates(x)[0]
    usual = value[1:129]
    assert float(value.abs().max()) > 9  # deviations of the whole set
    with torch.no_grad():
        flow.train()(usual)  # the first batch, from which the flow starts
        assert float(flow.eval()(value)[0].abs().max()) < 10 * float(value.abs().max())
    assert bridge.round_trip_error(x) <= 1e-4

"""The bridge against networks whose invariances are known by construction."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import svae
from svae.bridges import CodeDensity, InvarianceObjective
from svae.bridges.building import prepare
from svae.bridges.storing import representations, stored
from svae.data import ArrayData, ArraySet
from svae.factorization import Factorization
from svae.fibres import concept_shares
from svae.latent import Latent
from svae.training import Recipe
from svae.training.bridging import BridgeModule
from svae.training.fitting import training_of
from tests.unchecked import as_a_user


class Whitened(nn.Module):
    """An autoencoder of vectors that loses nothing: the code is the input, scaled."""

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.n = n

    def encode(self, x: Tensor) -> Tensor:
        return (x - 0.5) * 4

    def decode(self, code: Tensor) -> Tensor:
        return code / 4 + 0.5


def subject() -> nn.Sequential:
    """Reads the sum of the first two features, and ignores all else."""
    first, second = nn.Linear(4, 1, bias=False), nn.Linear(1, 2)
    first.weight.data = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    return nn.Sequential(first, second)


def vectors(n: int = 3000) -> ArrayData:
    x = 0.5 + torch.randn(n, 4, generator=torch.Generator().manual_seed(0)) / 4
    sets = [ArraySet(part, torch.arange(len(part)) % 2) for part in x.split(n // 3)]
    return ArrayData(*sets[:3], class_names=("a", "b"), bounded=False)


def a_bridge(**settings: int) -> svae.InvarianceBridge:
    torch.manual_seed(0)
    frozen = svae.Frozen(subject(), "0", x_shape=(4,))
    return svae.InvarianceBridge(
        frozen, Whitened(), **{"n_blocks": 4, "hidden": (32,), "context": 8, **settings}
    )


@pytest.fixture(scope="module")
def fitted() -> svae.InvarianceBridge:
    bridge = a_bridge()
    svae.fit(
        bridge,
        vectors(),
        max_epochs=30,
        enable_progress_bar=False,
        recipe=Recipe(learning_rate=1e-2),
        objective=InvarianceObjective(noise=0.0, fibre_weight=0.0),
        compile=False,
    )
    return bridge


def test_it_is_a_factorization() -> None:
    bridge = a_bridge().eval()
    assert isinstance(bridge, Factorization)
    x = torch.rand(5, 4)
    latent = bridge.encode(x)
    assert torch.equal(latent.z_class, bridge.frozen.representation(x))
    assert torch.allclose(bridge.decode(latent), x, atol=1e-5)
    assert svae.resample_nuisance(bridge, x, n=3).shape == (3, 5, 4)
    assert torch.equal(bridge.predict(x), bridge.frozen.predict(x))


def test_draws_have_the_representation_and_nothing_else(fitted: svae.InvarianceBridge) -> None:
    x = vectors().test.floats(limit=300)
    generator = torch.Generator().manual_seed(0)
    drawn = svae.resample_nuisance(fitted, x, n=200, generator=generator)
    total, wanted = drawn[..., :2].sum(-1), x[:, :2].sum(1)
    # A sum of two has standard deviation .354; the fibre keeps it.
    assert float((total - wanted).std()) < 0.06
    # Across the fibre: x0 given x0 + x1 has half the variance, x2 and x3 all of it.
    spread = drawn.var(0).mean(0) * 16
    assert torch.allclose(spread, torch.tensor([0.5, 0.5, 1.0, 1.0]), atol=0.12)


def test_edits_of_a_representation_are_shown_on_their_fibre(
    fitted: svae.InvarianceBridge,
) -> None:
    representation = torch.tensor([[0.6], [1.0], [1.4]])
    for v in (None, torch.tensor([0.5, -1.0, 0.3, 1.0])):
        show = fitted.decoder(v)
        with torch.no_grad():
            x = show(representation)
        # The sum that the layer reads is the one asked for, and all rows have one v.
        assert torch.allclose(fitted.frozen.representation(x), representation, atol=0.1)
        wanted = torch.zeros(4) if v is None else v
        with torch.no_grad():
            again, _ = fitted.noise(fitted.code(x), representation)
        assert torch.allclose(again, wanted.expand(3, 4), atol=1e-4)
    concepts = svae.ConceptBridge(
        svae.Frozen(subject(), "0", x_shape=(4,)), decoder=fitted.decoder(), n_blocks=1
    )
    prepare(concepts, vectors().train)
    x = vectors().test.floats(limit=5)
    with torch.no_grad():
        shown = svae.reconstruct(concepts, x)
        assert torch.allclose(
            fitted.frozen.representation(shown), fitted.frozen.representation(x), atol=0.1
        )
    with as_a_user(), pytest.raises(ValueError, match=r"v must have shape \(4,\).*got \(3,\)"):
        fitted.decoder(torch.zeros(3))


def test_a_concept_bridge_that_shows_fibres_is_saved_without_them(
    fitted: svae.InvarianceBridge, tmp_path: Path
) -> None:
    concepts = svae.ConceptBridge(fitted.frozen, n_blocks=1)
    prepare(concepts, vectors().train)
    concepts.decoder = fitted.decoder()
    concepts.save(tmp_path)
    x = vectors().test.floats(limit=5)
    again = svae.load(tmp_path, frozen=fitted.frozen, decoder=fitted.decoder())
    assert torch.equal(svae.reconstruct(again, x), svae.reconstruct(concepts.eval(), x))
    blind = svae.load(tmp_path, frozen=fitted.frozen)
    assert torch.equal(svae.read(blind, blind.encode(x)), svae.read(concepts, concepts.encode(x)))
    with pytest.raises(ValueError, match="there is no decoder"):
        svae.reconstruct(blind, x)


def test_shares_of_concepts_are_those_of_the_fibre(fitted: svae.InvarianceBridge) -> None:
    data = vectors()
    x = data.train.floats()
    labelled = ArraySet(x, data.train.marked, x)
    code = svae.Frozen.autoencoder(Whitened())
    code.representation(x[:2])
    concepts = svae.ConceptBridge(
        code,
        [svae.bridges.Attribute("first", 0), svae.bridges.Attribute("last", 3)],
        dims={"first": 1, "last": 1},
        n_blocks=1,
        hidden=(8,),
    )
    prepare(concepts, labelled)  # a new flow only permutes: parts lie along their features
    shares = concept_shares(
        fitted, concepts, data.test.floats(limit=400), 64, torch.Generator().manual_seed(0)
    )
    assert list(shares) == ["first", "last", "residual"]
    # The sum of the first two fixes half of the first's variance and nothing of the last's; of
    # the other two, half of one and nothing of the other.
    assert shares["first"].value == pytest.approx(0.5, abs=0.15)
    assert shares["last"].value == pytest.approx(0.0, abs=0.15)
    assert shares["residual"].value == pytest.approx(0.25, abs=0.15)
    with pytest.raises(ValueError, match="n of at least 2 draws, got 1"):
        concept_shares(fitted, concepts, data.test.floats(), 1)


def test_the_likelihoods_tell_what_the_layer_knows(fitted: svae.InvarianceBridge) -> None:
    # Noise 1 on a code of variance 1: I = log(1 + 2 / 2) / 2 for the sum of two features.
    objective = InvarianceObjective(noise=1.0, fibre_weight=0.0)
    settings = {
        "max_epochs": 25,
        "enable_progress_bar": False,
        "objective": objective,
        "recipe": Recipe(learning_rate=1e-2),
        "compile": False,
    }
    bridge, data = a_bridge(), vectors()
    density = CodeDensity(Whitened(), 4, n_blocks=4, hidden=(32,))
    svae.fit(bridge, data, **settings)
    svae.fit(density, data, **settings)
    x = data.test.floats()
    code = bridge.code(x)
    noisy = code + torch.randn(code.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        known = bridge.log_prob(noisy, bridge.frozen.representation(x)) - density.log_prob(noisy)
    assert float(known.mean()) == pytest.approx(0.5 * math.log(2), abs=0.08)


def test_the_fibre_loss_is_relative_to_the_representations_spread() -> None:
    bridge = a_bridge()
    r = torch.tensor([[0.0], [2.0], [4.0]])
    bridge.standardise(r)
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 5.0, 5.0]])
    wanted = (bridge.frozen.representation(x) - 2).abs()[:, 0] / r.std()
    assert torch.allclose(bridge.fibre_loss(x, torch.full((2, 1), 2.0)), wanted)


def test_refined_draws_are_nearer_to_the_fibre_and_as_wide() -> None:
    bridge, data = a_bridge(), vectors()
    svae.fit(
        bridge,
        data,
        max_epochs=15,
        enable_progress_bar=False,
        recipe=Recipe(learning_rate=1e-2),
        objective=InvarianceObjective(noise=0.0),
        compile=False,
    )
    x = data.test.floats(limit=200)
    wanted, found, spread = bridge.frozen.representation(x), [], []
    for n_steps in (0, bridge.refiner.n_steps):
        bridge.refiner.n_steps = n_steps
        drawn = svae.resample_nuisance(bridge, x, 100, torch.Generator().manual_seed(0))
        losses = [bridge.fibre_loss(one, wanted).mean() for one in drawn[:10]]
        found.append(float(torch.stack(losses).mean()))
        spread.append(drawn.var(0).mean(0) * 16)
    assert found[1] < 0.5 * found[0]
    assert torch.allclose(*spread, atol=0.1)
    # What lies on the fibre: x0 given x0 + x1 has half the variance, x2 and x3 all of it.
    assert torch.allclose(spread[1], torch.tensor([0.5, 0.5, 1.0, 1.0]), atol=0.2)


def test_the_flow_is_fitted_to_likelihood_alone() -> None:
    bridge = a_bridge()
    code = torch.randn(32, 4)
    bridge.standardise(code[:, :1])
    gradients = []
    for weight in (0.0, 10.0):
        bridge.zero_grad()
        torch.manual_seed(0)
        loss, values = InvarianceObjective(0.0, weight)(bridge, code, code[:, :1])
        loss.backward()
        gradients.append([p.grad for p in bridge.flow.parameters()])
    assert {"nll", "fibre_loss", "moved"} < set(values)
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    assert any(p.grad is not None and bool(p.grad.any()) for p in bridge.refiner.parameters())


def test_the_refiner_learns_slower_than_the_flow() -> None:
    module, _ = training_of(a_bridge(), vectors(), None, Recipe(learning_rate=1e-2), 0)
    assert isinstance(module, BridgeModule)
    groups = module.groups()
    assert sorted(group["lr"] for group in groups) == [pytest.approx(2e-3), pytest.approx(1e-2)]
    slow = next(group["params"] for group in groups if group["lr"] < 5e-3)
    assert {id(p) for p in slow} == {id(p) for p in module.model.refiner.parameters()}  # type: ignore[union-attr]


def test_an_unfitted_refiner_moves_nothing() -> None:
    bridge, representation = a_bridge().eval(), torch.randn(3, 1)
    latent = Latent(representation, torch.randn(3, 4))
    assert torch.equal(bridge.code_of(latent), bridge.proposed(latent))
    torch.nn.init.normal_(bridge.refiner.last.weight)
    assert not torch.allclose(bridge.code_of(latent), bridge.proposed(latent))
    codes = bridge.sample_codes(representation, 2, torch.Generator().manual_seed(0))
    v = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(codes[1], bridge.code_of(Latent(representation, v[1])), atol=1e-5)
    bridge.refiner.n_steps = 0
    assert torch.equal(bridge.code_of(latent), bridge.proposed(latent))
    with pytest.raises(ValueError, match="must be at least 0, got -1"):
        svae.InvarianceBridge(bridge.frozen, Whitened(), n_refine=-1)


def test_nothing_but_flow_and_refiner_is_trained() -> None:
    bridge, data = a_bridge(), vectors()
    before = bridge.frozen.fingerprint
    bridge.train()
    assert not bridge.frozen.model.training
    assert not bridge.autoencoder.training
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False, compile=False)
    assert bridge.frozen.fingerprint == before
    trained = {name.split(".")[0] for name, p in bridge.named_parameters() if p.requires_grad}
    assert trained == {"flow", "refiner"}


def test_maps_are_read_too() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 10))
    frozen = svae.Frozen(net, "1", x_shape=(1, 8, 8))
    autoencoder = svae.bridges.Autoencoder((1, 8, 8), n_code=6, width=8)
    bridge = svae.InvarianceBridge(frozen, autoencoder, n_blocks=2, hidden=(16,), context=8)
    data = svae.data.Digits()
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False, compile=False)
    latent = bridge.encode(data.test.floats(limit=4))
    assert latent.z_class.shape == (4, 3, 4, 4)
    assert svae.swap_nuisance(bridge, data.test.floats(limit=4), data.test.floats(limit=4)).shape


def test_wrong_parts_are_refused() -> None:
    frozen = svae.Frozen(subject(), "0", x_shape=(4,))
    with as_a_user(), pytest.raises(TypeError, match=r"must be a svae\.Frozen, got Seq"):
        svae.InvarianceBridge(subject(), Whitened())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"needs encode\(x\) and decode\(code\), Linear has no"):
        svae.InvarianceBridge(frozen, nn.Linear(4, 4))
    wrong = Whitened()
    wrong.encode = lambda x: x[:, None]  # type: ignore[method-assign]
    with as_a_user(), pytest.raises(ValueError, match=r"of shape \(1, 4\), expected vectors"):
        svae.InvarianceBridge(frozen, wrong)
    bridge = svae.InvarianceBridge(frozen, Whitened())
    with pytest.raises(ValueError, match="all units of '0' are constant in the training data"):
        bridge.standardise(torch.ones(5, 1))
    with pytest.raises(ValueError, match="not finite"):
        bridge.standardise(torch.full((5, 1), math.nan))
    with pytest.raises(ValueError, match=r"representations of shape \(1,\), got \(3,\)"):
        bridge.decode(Latent(torch.ones(2, 3), torch.ones(2, 4)))
    for number in (0, -1):
        with pytest.raises(ValueError, match="must be at least 1"):
            bridge.sample_nuisance(Latent(torch.ones(2, 1), torch.ones(2, 4)), number)
    with pytest.raises(ValueError, match="fibre_share above 0"):
        InvarianceObjective(fibre_share=0.0)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    bridge = a_bridge()
    bridge.standardise(torch.randn(50, 1))
    nn.init.normal_(bridge.refiner.last.weight, std=0.1)
    bridge.save(tmp_path)
    with pytest.raises(ValueError, match=r"the frozen network of .* give it again"):
        svae.load(tmp_path)
    frozen = svae.Frozen(subject(), "0", x_shape=(4,))
    with pytest.raises(ValueError, match=r"the autoencoder of .* give it again"):
        svae.load(tmp_path, frozen=frozen)
    frozen.model.load_state_dict(bridge.frozen.model.state_dict())
    again = svae.load(tmp_path, frozen=frozen, autoencoder=Whitened())
    x = torch.rand(5, 4)
    assert torch.equal(again.encode(x).z_nuisance, bridge.eval().encode(x).z_nuisance)
    assert torch.equal(svae.reconstruct(again, x), svae.reconstruct(bridge, x))
    next(frozen.model.parameters()).data += 1
    with pytest.raises(ValueError, match="fitted to another frozen network"):
        svae.load(tmp_path, frozen=frozen, autoencoder=Whitened())


def test_an_autoencoder_of_ours_goes_along(tmp_path: Path) -> None:
    autoencoder = svae.bridges.Autoencoder((1, 8, 8), n_code=6, width=8)
    frozen = svae.Frozen(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "1", x_shape=(1, 8, 8))
    bridge = svae.InvarianceBridge(frozen, autoencoder, n_blocks=2, hidden=(16,), context=8)
    bridge.save(tmp_path)
    again = svae.load(tmp_path, frozen=frozen)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(svae.reconstruct(again, x), svae.reconstruct(bridge.eval(), x))


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_are_stored_as_they_come(on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_disk:
        monkeypatch.setattr("svae.bridges.storing.MAX_BYTES", 10)
    rows = torch.randn(10, 3, 2)
    found = stored(iter(rows.split(4)), 10)
    assert torch.equal(found, rows)
    assert torch.equal(found[torch.tensor([7, 2])], rows[[7, 2]])
    with pytest.raises(ValueError, match="expected 11 rows, got 10"):
        stored(rows.split(4), 11)
    with pytest.raises(ValueError, match="expected 9 rows, got 10 or more"):
        stored(rows.split(5), 9)


class Picky(nn.Module):
    """Takes no input with a negative number, and no more than eight at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative light")
        if len(x) > 8:
            raise ValueError("too many")
        return self.inner(x)


def test_an_input_that_the_network_cannot_take_is_named() -> None:
    frozen = svae.Frozen(Picky(), "inner", x_shape=(4,))
    x = torch.rand(20, 4)
    assert len(torch.cat([*representations(frozen.representation, x.split(5))])) == 20
    x[13, 2] = -0.25
    message = r"ValueError on the inputs number 13 \(values from -0.25 to .*negative light"
    with pytest.raises(RuntimeError, match=message):
        list(representations(frozen.representation, x.split(5)))
    with pytest.raises(RuntimeError, match=r"the inputs 0 to 9 together: too.*fewer"):
        list(representations(frozen.representation, x[:10].split(10)))
    data = vectors()
    assert bool((data.train.x < 0).any())
    bridge = svae.InvarianceBridge(frozen, Whitened())
    with pytest.raises(RuntimeError, match="ValueError on the training examples number"):
        svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    with pytest.raises(RuntimeError, match="the network raised ValueError on"):
        svae.fit(svae.ConceptBridge(frozen), data, max_epochs=1, enable_progress_bar=False)

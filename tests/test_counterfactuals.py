import pytest
import torch
from torch import Tensor

from svae.counterfactuals import class_parts, counterfactual, semi_factual
from svae.latent import Latent


class Halves:
    """Four numbers: two are the class, whose sum decides, and two the nuisance, which may lie."""

    def __init__(self, leak: float = 0.0) -> None:
        self.leak = leak

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[:, :2], x[:, 2:])

    def decode(self, latent: Latent) -> Tensor:
        return torch.cat([latent.z_class, latent.z_nuisance], 1)

    def predict(self, x: Tensor) -> Tensor:
        score = 3 * (x[:, 0] + x[:, 1] + self.leak * x[:, 2])
        return torch.stack([score, -score], 1)

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, len(latent.z_class), 2, generator=generator)


@pytest.fixture
def x() -> Tensor:
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    x[:, :2] = x[:, :2].sign().mean(1, keepdim=True) + 0.4 * x[:, :2]
    return x[x[:, :2].sum(1).abs() > 0.5]


def test_a_semi_factual_keeps_the_class_part_and_goes_far(x: Tensor) -> None:
    model = Halves()
    found = semi_factual(model, x, 32, 0.9, generator=torch.Generator().manual_seed(0))
    own = model.predict(x).argmax(1)
    assert torch.equal(found.x[:, :2], x[:, :2])
    sure = model.predict(x).softmax(1).amax(1) >= 0.9
    assert torch.equal(found.answer[sure], own[sure])
    assert bool(found.found.all())
    draws = model.sample_nuisance(model.encode(x[:50]), 32, torch.Generator().manual_seed(0))
    far = (draws - x[:50, 2:]).square().sum(2).div(4).sqrt().amax(0)
    assert torch.allclose(found.distance[:50][sure[:50]], far[sure[:50]], atol=1e-5)
    assert torch.allclose(found.path[-1], found.x)
    assert torch.allclose(found.path[0], x)
    assert found.path_confidence.shape == (9, len(x))


def test_draws_that_turn_the_answer_do_not_count(x: Tensor) -> None:
    model = Halves(leak=1.0)
    found = semi_factual(model, x, 32, generator=torch.Generator().manual_seed(0))
    own = model.predict(x).argmax(1)
    draws = model.sample_nuisance(model.encode(x[:50]), 32, torch.Generator().manual_seed(0))
    turned = torch.stack(
        [model.predict(torch.cat([x[:50, :2], z], 1)).argmax(1) != own[:50] for z in draws]
    )
    assert float(turned.float().mean()) > 0.03  # otherwise there is nothing to leave out
    assert torch.equal(found.answer, own)
    assert float(found.confidence.min()) > 0.8


def test_a_counterfactual_is_as_near_as_the_answer_allows(x: Tensor) -> None:
    model = Halves()
    towards = class_parts(model, x)
    found = counterfactual(model, x, towards, confidence=0.9)
    own = model.predict(x).argmax(1)
    assert torch.equal(found.answer, 1 - own)
    assert torch.equal(found.x[:, 2:], x[:, 2:])
    assert float(found.confidence.min()) >= 0.9
    # p = sigmoid(6 s) of the sum s: .9 at s = .366; the path is straight, so t is known.
    wanted = torch.where(own == 0, -1.0, 1.0) * 0.3662
    first, goal = x[:, :2].sum(1), towards[1 - own].sum(1)
    t = (wanted - first) / (goal - first)
    reached = (found.x[:, :2].sum(1) - first) / (goal - first)
    assert torch.allclose(reached, t, atol=1 / 16 / 2**5 + 1e-3)
    assert bool((reached >= t - 1e-4).all())
    assert bool((found.path_confidence.diff(dim=0) >= -1e-6).all())


def test_an_answer_that_is_never_reached_is_said_to_be(x: Tensor) -> None:
    model = Halves()
    nowhere = model.encode(x).z_class[:1].expand(2, -1)
    found = counterfactual(model, x[:1], nowhere)
    assert not bool(found.found.any())
    own = int(model.predict(x[:1]).argmax())
    assert int(found.answer) == own
    target = torch.tensor([own])
    assert bool(counterfactual(model, x[:1], nowhere, target).found)


def test_what_does_not_fit_is_refused(x: Tensor) -> None:
    model = Halves()
    with pytest.raises(ValueError, match="at least 2 classes, got the class parts of 1"):
        counterfactual(model, x, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"confidence in \[0, 1\], got 64, 8 and 2"):
        semi_factual(model, x, confidence=2.0)
    one = x[model.predict(x).argmax(1) == 0]
    with pytest.raises(ValueError, match=r"never answers \[1\] to these"):
        class_parts(model, one)

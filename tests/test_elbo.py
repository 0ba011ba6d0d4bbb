import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from svae.elbo import SupervisedELBO, evidence, without_flow
from svae.flows import ConditionalFlow
from svae.independence import ClassConditionalMMD
from svae.latent import LatentSplit
from svae.models import SVAE, SupervisedModel
from svae.priors import FlowPrior, StandardPrior
from tests.problems import (
    LinearGaussian,
    Posterior,
    examples,
    expected_terms,
    linear_gaussian,
)

KINDS = pytest.mark.parametrize("label_first", [True, False], ids=["label-first", "label-last"])
OWN = pytest.mark.parametrize("own_log_joint", [True, False], ids=["method", "sites"])


def parts(vae: SVAE) -> tuple[LinearGaussian, Posterior]:
    return cast(LinearGaussian, vae.model), cast(Posterior, vae.guide)


def elbo(terms: dict[str, Tensor]) -> Tensor:
    return -(terms["x"] + terms["z_class"] + terms["style"] + terms["y"])


def truth(model: LinearGaussian, x: Tensor, y: Tensor) -> Tensor:
    """log p(x, y) where the guide is given y, log p(x) where it is not."""
    joint = model.log_x_and(x)[torch.arange(len(y)), y] if model.label_first else None
    return model.log_evidence(x) if joint is None else joint


@KINDS
@OWN
def test_every_particle_is_the_evidence(label_first: bool, own_log_joint: bool) -> None:
    vae = linear_gaussian(label_first, own_log_joint=own_log_joint)
    x, y = examples()
    for particles in (1, 2, 5):
        objective = SupervisedELBO(analytic=False, particles=particles)
        terms = objective.terms(vae.model, vae.guide, x, y)
        torch.testing.assert_close(elbo(terms), truth(parts(vae)[0], x, y))


@KINDS
def test_with_analytic_rates_only_the_expectation_is(label_first: bool) -> None:
    vae = linear_gaussian(label_first)
    x, y = (part.repeat_interleave(20_000, 0) for part in examples(3))
    found = elbo(SupervisedELBO(analytic=True).terms(vae.model, vae.guide, x, y)).view(3, -1)
    assert (found.std(1) > 0.1).all()
    exact = truth(parts(vae)[0], *examples(3))
    assert ((found.mean(1) - exact).abs() < 4 * found.std(1) / math.sqrt(20_000)).all()


@KINDS
@OWN
@pytest.mark.parametrize("analytic", [True, False])
def test_every_term_is_its_closed_form(
    label_first: bool, own_log_joint: bool, analytic: bool
) -> None:
    vae = linear_gaussian(label_first, shift=0.3, spread=0.6, own_log_joint=own_log_joint)
    n = 10_000
    x, y = (part.repeat_interleave(n, 0) for part in examples(3))
    found = SupervisedELBO(analytic=analytic).terms(vae.model, vae.guide, x, y)
    wanted = expected_terms(*parts(vae), *examples(3))
    assert list(found) == ["x", "z_class", "style", "label", "y"]
    for name, term in found.items():
        rows = term.view(3, n)
        error = (rows.mean(1) - wanted[name]).abs()
        assert (error <= 4 * rows.std(1) / math.sqrt(n) + 1e-9).all(), (name, error)
    assert (found["z_class"].view(3, n).std(1).max() < 1e-9) == analytic


@KINDS
@pytest.mark.parametrize("analytic", [True, False])
def test_weights_against_closed_form(label_first: bool, analytic: bool) -> None:
    vae = linear_gaussian(label_first, shift=0.3, spread=0.6)
    x, y = examples()
    objective = SupervisedELBO(
        beta_class=3.0, beta_style=0.4, label_weight=7.0, particles=2000, analytic=analytic
    )
    losses, terms = zip(*(objective(vae, x, y) for _ in range(4)), strict=True)
    wanted = expected_terms(*parts(vae), x, y)
    weights = {"x": 1.0, "z_class": 3.0, "style": 0.4, "label": 7.0, "y": 1.0}
    loss = sum(weight * wanted[name].mean() for name, weight in weights.items())
    found = torch.stack(losses)
    assert found.std() < 0.15
    torch.testing.assert_close(found.mean(), loss, atol=0.15, rtol=0)
    for name, value in wanted.items():
        mean = torch.stack([t[name] for t in terms]).mean()
        torch.testing.assert_close(mean, value.mean(), atol=0.06, rtol=0)


@KINDS
@pytest.mark.parametrize("analytic", [True, False])
def test_gradients_carry_the_weights(label_first: bool, analytic: bool) -> None:
    """A weight on the model alone would show here: the guide would not feel it, or twice."""
    vae = linear_gaussian(label_first, spread=0.6)
    x, y = examples()
    model, guide = parts(vae)
    shift = torch.full((5,), 0.3, dtype=torch.float64, requires_grad=True)
    guide.shift = cast(float, shift)  # broadcasts over the dims of z
    settings: dict[str, Any] = {"beta_class": 3.0, "beta_style": 0.4, "label_weight": 7.0}
    objective = SupervisedELBO(**settings, particles=8_000, analytic=analytic)
    found = torch.autograd.grad(objective(vae, x, y)[0], shift)[0]
    weights = {"x": 1.0, "z_class": 3.0, "style": 0.4, "label": 7.0, "y": 1.0}
    terms = expected_terms(model, guide, x, y)
    loss = sum(weight * terms[name].mean() for name, weight in weights.items())
    wanted = torch.autograd.grad(cast(Tensor, loss), shift)[0]
    assert wanted.abs().min() > 0.3
    torch.testing.assert_close(found, wanted, atol=0.25, rtol=0)


def test_particles_average_and_keep_one_row_per_example() -> None:
    vae = linear_gaussian(True, shift=0.5)
    x, y = examples()
    one, many = (SupervisedELBO(analytic=False, particles=n) for n in (1, 64))
    spread = []
    for objective in (one, many):
        drawn = [objective.terms(vae.model, vae.guide, x, y)["x"] for _ in range(30)]
        assert drawn[0].shape == (len(x),)
        spread.append(torch.stack(drawn).var(0).mean())
    assert spread[0] / spread[1] == pytest.approx(64, rel=0.4)


def test_warm_up_raises_the_rates_and_nothing_else() -> None:
    objective = SupervisedELBO(beta_class=4.0, beta_style=2.0, label_weight=9.0, warm_up=10)
    assert objective.weights(0) == {"x": 1, "z_class": 0, "style": 0, "label": 9, "y": 1}
    assert objective.weights(5) == {"x": 1, "z_class": 2, "style": 1, "label": 9, "y": 1}
    final = {"x": 1, "z_class": 4, "style": 2, "label": 9, "y": 1}
    assert objective.weights(10) == objective.weights(1000) == objective.weights() == final
    vae = linear_gaussian(False)
    x, y = examples()
    loss, terms = objective(vae, x, y, objective.weights(0))
    torch.testing.assert_close(loss, terms["x"] + 9 * terms["label"])


def small(flow: bool = True) -> SVAE:
    prior = FlowPrior(ConditionalFlow(2, 3, n_blocks=1, hidden=(8,))) if flow else StandardPrior(2)
    return SVAE.for_vectors(6, 3, LatentSplit(2, 2), style_prior=prior, hidden=(8,)).eval()


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    grads = torch.autograd.grad(
        loss, list(module.parameters()), retain_graph=True, allow_unused=True
    )
    return [grad for grad in grads if grad is not None]


def test_free_bits_release_the_guide_and_not_the_flow() -> None:
    vae = small()
    x, y = torch.rand(32, 6), torch.arange(32) % 3
    model = cast(SupervisedModel, vae.model)
    for floor, held in ((1e4, True), (1e-6, False)):
        torch.manual_seed(0)
        terms = SupervisedELBO(free_bits={"style": floor}).terms(vae.model, vae.guide, x, y)
        torch.manual_seed(0)
        plain = SupervisedELBO().terms(vae.model, vae.guide, x, y)
        # What is logged is the rate itself, not the floor.
        torch.testing.assert_close(terms["style"], plain["style"])
        pull = [g for g in gradients(terms["style"].mean(), cast(nn.Module, vae.guide)) if g.any()]
        assert (len(pull) == 0) is held
        learns = gradients(terms["style"].mean(), model.style_prior)
        wanted = gradients(plain["style"].mean(), model.style_prior)
        assert max(float(g.abs().max()) for g in learns) > 1e-3
        for a, b in zip(learns, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_free_bits_of_the_class_block_leave_the_head_learning() -> None:
    vae = small(flow=False)
    x, y = torch.rand(32, 6), torch.arange(32) % 3
    objective = SupervisedELBO(free_bits={"z_class": 1e4})
    rate = objective.terms(vae.model, vae.guide, x, y)["z_class"].mean()
    assert not any(bool(g.any()) for g in gradients(rate, cast(nn.Module, vae.guide)))
    head = cast(SupervisedModel, vae.model).head
    assert any(bool(g.any()) for g in gradients(rate, head))


def test_without_flow_the_prior_is_standard_and_weights_are_shared() -> None:
    vae = small()
    flow = cast(FlowPrior, cast(SupervisedModel, vae.model).style_prior).flow
    nn.init.normal_(next(p for p in flow.parameters() if p.dim() == 1), std=1.0)
    x, y = torch.rand(8, 6), torch.arange(8) % 3
    plain = without_flow(vae)
    objective = SupervisedELBO()
    rates = []
    for pair in (vae, plain):
        torch.manual_seed(0)
        rates.append(objective.terms(pair.model, pair.guide, x, y)["style"])
    drawn = vae.guide.encoder(x)
    loc, raw = vae.guide.parameters_of(drawn).chunk(2, -1)
    scale = nn.functional.softplus(raw[:, 2:]) + vae.guide.min_scale
    closed = 0.5 * (loc[:, 2:].square() + scale.square() - 1).sum(-1) - scale.log().sum(-1)
    torch.testing.assert_close(rates[1], closed)
    assert (rates[0] - rates[1]).abs().max() > 0.1
    latent = plain.encode(x)
    torch.testing.assert_close(latent.z_nuisance, loc[:, 2:])
    assert plain.guide is vae.guide


def test_a_penalty_enters_the_loss_with_its_weight() -> None:
    vae = small(flow=False)
    x, y = torch.rand(32, 6), torch.arange(32) % 3
    losses = []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        losses.append(SupervisedELBO(penalties=[ClassConditionalMMD(weight)])(vae, x, y))
    penalty = losses[1][1]["class_conditional_mmd"]
    assert penalty.abs() > 1e-4
    torch.testing.assert_close(losses[1][0] - losses[0][0], 2 * penalty, atol=2e-4, rtol=1e-3)


@KINDS
@OWN
def test_evidence_is_exact_with_the_true_posterior(label_first: bool, own_log_joint: bool) -> None:
    vae = linear_gaussian(label_first, own_log_joint=own_log_joint)
    x, _ = examples()
    lower, iwae = evidence(vae, x, n=3)
    torch.testing.assert_close(lower, parts(vae)[0].log_evidence(x))
    torch.testing.assert_close(iwae, parts(vae)[0].log_evidence(x))


def test_evidence_sums_over_a_label_that_x_itself_depends_on() -> None:
    model = LinearGaussian(label_first=True, offsets=True)
    vae = SVAE(model, Posterior(model), (5,))
    x, _ = examples()
    lower, iwae = evidence(vae, x, n=3)
    torch.testing.assert_close(lower, model.log_evidence(x))
    torch.testing.assert_close(iwae, model.log_evidence(x))


@KINDS
@OWN
def test_bounds_stand_in_order_with_a_wrong_guide(label_first: bool, own_log_joint: bool) -> None:
    vae = linear_gaussian(label_first, shift=0.1, spread=1.3, own_log_joint=own_log_joint)
    x, _ = examples()
    exact = parts(vae)[0].log_evidence(x)
    lower, few = (bound.mean() for bound in evidence(vae, x.repeat(300, 1), n=4))
    many = evidence(vae, x, n=5000)[1].mean()
    assert lower < few - 0.05 < many
    assert few < exact.mean() - 0.02
    torch.testing.assert_close(many, exact.mean(), atol=0.02, rtol=0)


@KINDS
def test_one_sample_is_the_elbo(label_first: bool) -> None:
    vae = linear_gaussian(label_first, shift=0.3)
    lower, iwae = evidence(vae, examples()[0], n=1)
    torch.testing.assert_close(lower, iwae)


def test_evidence_needs_a_sample() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evidence(linear_gaussian(True), examples()[0], n=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_class": -1.0}, "weight of z_class .* -1"),
        ({"beta_style": float("nan")}, "weight of style .* nan"),
        ({"label_weight": float("inf")}, "weight of label .* inf"),
        ({"warm_up": -1}, "got -1, 1"),
        ({"particles": 0}, "got 0, 0"),
        ({"free_bits": {"nuisance": 1.0}}, r"knows the blocks .*'z_class', 'style'.*nuisance"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SupervisedELBO(**settings)

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from svae.sites import check_sites, draw_class, draws, latent_sites, log_joint_of, means, site
from tests.plain_pyro import MODELS, N_CLASS, N_CLASSES, N_STYLE, N_X, LabelFirst, StructuredGuide

X = torch.linspace(0, 1, 6 * N_X).reshape(6, N_X)


@pytest.mark.parametrize("name", MODELS)
def test_site_gives_the_distribution_with_the_others_held(name: str) -> None:
    model = MODELS[name]()
    z_class, style = torch.randn(6, N_CLASS), torch.randn(6, N_STYLE)
    output = model.decoder(torch.cat([z_class, style], -1)).sigmoid()
    assert torch.allclose(site(model, "x", X, z_class=z_class, style=style).mean, output)
    assert site(model, "style", X, z_class=z_class).event_shape == (N_STYLE,)


def test_nothing_after_the_site_runs() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(x, 1).to_event(1))
        raise AssertionError("ran on")

    assert torch.equal(site(model, "z_class", X).mean, X)


def test_an_unknown_site_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no site 'w'; its sites are .*'y', 'z_class', 'style'"):
        site(LabelFirst(), "w", X)


@pytest.mark.parametrize("name", MODELS)
def test_log_joint_from_sites_is_the_density(name: str) -> None:
    model = MODELS[name]()
    z_class = 3 * torch.randn(6, N_CLASS)
    if isinstance(model, LabelFirst):
        density = torch.distributions.Normal(model.loc, model.scale).log_prob(z_class[:, None])
        expected = density.sum(-1) + model.probabilities.log()
    else:
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z_class).sum(-1, keepdim=True)
        expected = prior + model.head(z_class).log_softmax(-1)
    given = log_joint_of(model, X, z_class)
    assert given.shape == (6, N_CLASSES)
    assert torch.allclose(given, expected, atol=1e-4)


def test_a_models_own_log_joint_is_taken() -> None:
    class Own(LabelFirst):
        def log_joint(self, z_class: Tensor) -> Tensor:
            return z_class.new_full((len(z_class), N_CLASSES), 7.0)

    assert (log_joint_of(Own(), X, torch.randn(6, N_CLASS)) == 7).all()


@pytest.mark.parametrize("name", MODELS)
def test_draws_of_the_class_latent_belong_to_the_label(name: str) -> None:
    # E[f(z) given y = k] is compared with prior draws weighted by p(y = k given z).
    model = MODELS[name]()
    if name != "label first":
        nn.init.normal_(model.head.weight, std=2.0)
    y = torch.arange(N_CLASSES).repeat(1500)
    x = torch.zeros(len(y), N_X)
    with torch.no_grad():
        z = draw_class(model, x, y)
        prior = poutine.trace(model).get_trace(torch.zeros(20000, N_X)).nodes["z_class"]["value"]
        weight = log_joint_of(model, torch.zeros(20000, N_X), prior).softmax(-1)
    for k in range(N_CLASSES):
        expected = (weight[:, k, None] * prior).sum(0) / weight[:, k].sum()
        assert (z[y == k].mean(0) - expected).abs().max() < 0.15


def test_a_class_that_is_never_accepted_gets_the_best_try() -> None:
    model = MODELS["label last"]()
    nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([0.0, 0.0, 0.0, -60.0])
    model.head.weight.data[3, 0] = 5.0
    z = draw_class(model, torch.zeros(20, N_X), torch.full((20,), 3))
    assert z.isfinite().all()
    assert z[:, 0].min() > 1.5


def test_means_of_a_structured_guide() -> None:
    guide = StructuredGuide()
    z_class, style = means(guide, X)
    assert torch.allclose(z_class, guide.z_class(X))
    assert torch.allclose(style, guide.style(torch.cat([X, z_class], -1)))
    sampled, style = means(guide, X, sample=True)
    assert not torch.allclose(sampled, z_class, atol=1e-2)
    expected = guide.style(torch.cat([X, sampled], -1))
    assert (style - expected).abs().max() < 0.2 * 5


def test_samples_of_a_guide_have_its_moments() -> None:
    x = X[:1].expand(4000, N_X)
    guide = StructuredGuide()
    z_class, _ = means(guide, x, sample=True)
    assert torch.allclose(z_class.mean(0), guide.z_class(X[0]), atol=0.03)
    assert torch.allclose(z_class.std(0), torch.full((N_CLASS,), 0.3), atol=0.02)


def test_without_a_mean_in_closed_form_the_base_mean_is_mapped() -> None:
    def guide(x: Tensor, y: Tensor | None = None) -> None:
        base = dist.Normal(x[:, :2], 1.0).to_event(1)
        exp = torch.distributions.transforms.ExpTransform()
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.TransformedDistribution(base, [exp]))
            single = dist.TransformedDistribution(dist.Normal(x[:, :3], 1.0), [exp])
            pyro.sample("style", single.to_event(1))

    z_class, style = means(guide, X)
    assert torch.allclose(z_class, X[:, :2].exp())
    assert torch.allclose(style, X[:, :3].exp())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("labelled", [True, False])
def test_fitting_sites_pass(name: str, labelled: bool) -> None:
    check_sites(MODELS[name](), StructuredGuide(), X, torch.zeros(6).long() if labelled else None)
    trace = poutine.trace(MODELS[name]()).get_trace(X)
    assert sorted(latent_sites(trace)) == ["style", "x", "y", "z_class"]


def guide_of(
    *names: str, width: int = N_STYLE, plate: bool = True, event: bool = True
) -> Callable:
    def guide(x: Tensor, y: Tensor | None = None) -> None:
        def draw() -> None:
            for name in names:
                n = N_CLASS if name == "z_class" else width
                made = dist.Normal(torch.zeros(len(x), n), 1.0)
                pyro.sample(name, made.to_event(1) if event else made.to_event(0))

        if plate:
            with pyro.plate("batch", len(x)):
                draw()
        else:
            draw()

    return guide


BOTH = r"(?s:.*)model: y \(6,\)\(\), z_class \(6,\)\(2,\), style \(6,\)\(3,\), x.*\n  guide: "


@pytest.mark.parametrize(
    ("guide", "match"),
    [
        (guide_of("z_class"), r"a guide has exactly the sites" + BOTH + r"z_class \(6,\)\(2,\)"),
        (guide_of("z_class", "z_nuisance"), "a guide has exactly" + BOTH + "z_class.*z_nuisance"),
        (guide_of("z_class", "style", "y"), "a guide has exactly" + BOTH + ".*style.*, y"),
        (
            guide_of("z_class", "style", width=4),
            r"disagree on the shape of 'style'.*to_event" + BOTH + r".*style \(6,\)\(4,\)",
        ),
        (guide_of("style", "z_class", width=N_CLASS), "disagree on the shape of 'style'" + BOTH),
        (
            guide_of("z_class", "style", plate=False, event=False),
            r"disagree on the shape of 'z_class'" + BOTH + r"z_class \(6, 2\)\(\)",
        ),
    ],
)
def test_disagreeing_sites_are_printed_side_by_side(guide: Callable, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_sites(LabelFirst(), guide, X)


def test_a_class_latent_of_another_width_is_named_before_any_network_fails() -> None:
    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(torch.zeros(len(x), 7), 1.0).to_event(1))
            pyro.sample("style", dist.Normal(torch.zeros(len(x), N_STYLE), 1.0).to_event(1))

    for name in MODELS:
        with pytest.raises(
            ValueError, match=r"shape of 'z_class'.*(?s:.*)guide: z_class \(6,\)\(7"
        ):
            check_sites(MODELS[name](), guide, X)


def test_a_model_with_another_site_is_refused() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("hue", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match=r"(?s)a model has exactly .*'style', 'x', 'y'.*hue"):
        check_sites(model, StructuredGuide(), X)


def test_a_batch_outside_a_plate_is_refused() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        shape = (len(x), N_CLASS)
        pyro.sample("z_class", dist.Normal(torch.zeros(shape), 1.0).to_event(2))
        pyro.sample("style", dist.Normal(torch.zeros(shape), 1.0).to_event(2))
        pyro.sample("y", dist.Bernoulli(0.5), obs=y)
        pyro.sample("x", dist.Normal(x, 1.0).to_event(2), obs=x)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        for name in ("z_class", "style"):
            pyro.sample(name, dist.Normal(torch.zeros(len(x), N_CLASS), 1.0).to_event(2))

    with pytest.raises(ValueError, match=r"must have batch shape \(6,\): .* pyro.plate"):
        check_sites(model, guide, X)


def test_a_guide_without_style_is_told_what_it_draws() -> None:
    with pytest.raises(ValueError, match=r"lacks the site \['style'\]; it has \['z_class'\]"):
        means(guide_of("z_class"), X)


class Structured(nn.Module):
    """q(style given x, z_class) by a network that takes no leading batch dims."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3 + 2, 2)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            z_class = pyro.sample("z_class", dist.Normal(x[:, :2], 0.1).to_event(1))
            loc = self.net(torch.cat([x, z_class], -1))
            pyro.sample("style", dist.Normal(loc, 1e-4).to_event(1))


def test_draws_are_joint_samples_of_each_row() -> None:
    x = torch.randn(5, 3)
    for guide in (Structured(), Independent()):
        z_class, style = draws(guide, x, 400)
        assert z_class.shape == style.shape == (2000, 2)
        by_row = z_class.unflatten(0, (400, 5))
        torch.testing.assert_close(by_row.mean(0), x[:, :2], atol=0.03, rtol=0)
        torch.testing.assert_close(by_row.std(0), torch.full((5, 2), 0.1), atol=0.02, rtol=0)
    guide = Structured()
    z_class, style = draws(guide, x, 3)
    # The style belongs to the class code of the same draw, not to another's.
    expected = guide.net(torch.cat([x.repeat(3, 1), z_class], -1))
    torch.testing.assert_close(style, expected, atol=1e-3, rtol=0)


class Independent(nn.Module):
    """Draws both blocks in one run whatever the number of draws; counts its runs."""

    runs = 0

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        self.runs += 1
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(x[:, :2], 0.1).to_event(1))
            pyro.sample("style", dist.Normal(x[:, 1:], 0.1).to_event(1))


def test_a_guide_that_broadcasts_runs_once_for_all_draws() -> None:
    guide = Independent()
    draws(guide, torch.randn(4, 3), 50)
    assert guide.runs == 1


@pytest.mark.parametrize("guide", [lambda x: None, lambda x, y: None])
def test_another_signature_is_said(guide: Any) -> None:
    message = r"guide is called as guide\(x\) .* Write it as \(x, y=None\)"
    with pytest.raises(TypeError, match=message):
        check_sites(LabelFirst(), guide, torch.rand(3, N_X))

from typing import Any

import pytest
import torch
from torch.nn import functional

from svae.likelihoods import (
    Bernoulli,
    Columns,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    Likelihood,
)

LIKELIHOODS = [
    Bernoulli(),
    ContinuousBernoulli(),
    Gaussian(),
    Laplace(),
    DiscretisedLogistic(),
    Gaussian(bounded=False),
]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("event", [(5,), (1, 2, 3)])
def test_all_dims_of_an_example_are_one_event(
    likelihood: Likelihood, event: tuple[int, ...]
) -> None:
    output, x = torch.randn(4, *event), torch.rand(4, *event)
    given = likelihood(output, event_dims=len(event))
    assert given.batch_shape == (4,)
    assert given.event_shape == event
    assert given.mean.shape == (4, *event)
    assert given.log_prob(x).shape == (4,)
    assert given.log_prob(x).isfinite().all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_larger_output_is_a_larger_mean(likelihood: Likelihood) -> None:
    means = likelihood(torch.linspace(-2, 2, 9).reshape(1, 9), event_dims=1).mean
    assert (means.diff() > 0).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS[:5])
def test_means_of_images_are_within_the_unit_interval(likelihood: Likelihood) -> None:
    means = likelihood(30 * torch.randn(1, 200), event_dims=1).mean
    assert means.min() >= 0
    assert means.max() <= 1


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_half_precision_comes_back_as_float32(likelihood: Likelihood) -> None:
    given = likelihood(torch.randn(2, 3).bfloat16(), event_dims=1)
    assert given.log_prob(torch.rand(2, 3)).dtype == torch.float32


def test_bernoulli_is_the_cross_entropy_also_of_grey_values() -> None:
    output, x = torch.randn(4, 6), torch.rand(4, 6)
    expected = -functional.binary_cross_entropy_with_logits(output, x, reduction="none").sum(-1)
    assert torch.allclose(Bernoulli()(output, 1).log_prob(x), expected, atol=1e-5)
    assert torch.allclose(Bernoulli()(output, 1).mean, output.sigmoid())


@pytest.mark.parametrize(
    ("likelihood", "low", "high"),
    [(ContinuousBernoulli(), 0.0, 1.0), (Gaussian(), -3.0, 4.0), (Laplace(), -3.0, 4.0)],
)
@pytest.mark.parametrize("output", [-3.0, 0.0, 1.5])
def test_a_density_integrates_to_one(
    likelihood: Likelihood, low: float, high: float, output: float
) -> None:
    assert likelihood.density
    x = torch.linspace(low, high, 20001)
    p = likelihood(torch.full((len(x), 1), output), 1).log_prob(x[:, None]).exp()
    assert torch.trapezoid(p, x).item() == pytest.approx(1, abs=1e-3)


def test_bernoulli_on_grey_values_is_no_density() -> None:
    assert not Bernoulli().density
    x = torch.linspace(0, 1, 1001)
    p = Bernoulli()(torch.zeros(1001, 1), 1).log_prob(x[:, None]).exp()
    assert torch.trapezoid(p, x).item() == pytest.approx(0.5, abs=1e-3)


def test_gaussian_against_torch() -> None:
    output, x = torch.randn(4, 6), torch.rand(4, 6)
    for bounded, loc in ((True, output.sigmoid()), (False, output)):
        expected = torch.distributions.Normal(loc, 0.3).log_prob(x).sum(-1)
        given = Gaussian(0.3, bounded=bounded)(output, 1)
        assert torch.allclose(given.log_prob(x), expected, atol=1e-4)
        assert torch.allclose(given.mean, loc)


def test_scale_is_learned_or_not_and_has_a_floor() -> None:
    assert Gaussian().log_scale.requires_grad
    assert not Gaussian(learned=False).log_scale.requires_grad
    narrow = Gaussian(1e-9)(torch.zeros(1, 2), 1)
    assert narrow.variance.sqrt().tolist()[0] == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize("scale", [0.0, -0.1])
def test_scale_must_be_positive(scale: Any) -> None:
    with pytest.raises(ValueError, match=f"scale must be positive, got {scale}"):
        Gaussian(scale)


@pytest.mark.parametrize("scale", [0.002, 0.05, 3.0])
def test_probabilities_of_levels_sum_to_one_and_have_the_mean(scale: float) -> None:
    levels = torch.arange(256).double() / 255
    output = torch.tensor([-9.0, -1.0, 0.0, 0.4, 9.0]).double().expand(256, -1)
    given = DiscretisedLogistic(scale).double()(output, event_dims=0)
    log_p = given.log_prob(levels[:, None].expand_as(output))
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(5).double())
    mean = (log_p.exp() * levels[:, None]).sum(0)
    assert (mean - given.mean[0]).abs().max() < 0.5 / 255
    drawn = given.sample()
    assert given.support.check(drawn).all()


def test_a_level_is_the_mass_of_its_interval() -> None:
    scale, loc = 0.03, 0.4
    base = torch.distributions.Uniform(torch.tensor(0.0).double(), 1)
    logistic = torch.distributions.TransformedDistribution(
        base,
        [
            torch.distributions.SigmoidTransform().inv,
            torch.distributions.AffineTransform(torch.tensor(loc).double(), scale),
        ],
    )
    x = torch.tensor([100 / 255]).double()
    mass = logistic.cdf(x + 0.5 / 255) - logistic.cdf(x - 0.5 / 255)
    output = torch.logit(torch.tensor([loc]).double())
    found = DiscretisedLogistic(scale).double()(output, 0).log_prob(x)
    torch.testing.assert_close(found, mass.log(), atol=1e-6, rtol=1e-5)


def test_columns_are_gaussians_and_categories() -> None:
    table = Columns(n_numeric=2, categories=(3, 2))
    assert table.n_features == 7
    output = torch.randn(4, 7)
    x = torch.tensor([[0.3, -1.0, 0, 1, 0, 1, 0]]).expand(4, -1)
    given = table(output, event_dims=1)
    numbers = torch.distributions.Normal(output[:, :2], 0.5).log_prob(x[:, :2]).sum(1)
    wanted = numbers + output[:, 2:5].log_softmax(1)[:, 1] + output[:, 5:].log_softmax(1)[:, 0]
    torch.testing.assert_close(given.log_prob(x), wanted)
    torch.testing.assert_close(given.mean[:, 2:5], output[:, 2:5].softmax(1))
    drawn = given.sample()
    assert given.support.check(drawn).all()
    assert not given.support.check(torch.full((4, 7), 0.5)).any()
    assert not given.support.check(x * torch.nan).any()


def test_columns_of_one_kind_only() -> None:
    assert Columns(3)(torch.zeros(2, 3), 1).log_prob(torch.zeros(2, 3)).shape == (2,)
    assert Columns(0, (2, 2))(torch.zeros(2, 4), 1).mean.tolist() == [[0.5] * 4] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_numeric": 0}, "needs a numeric column or a categorical"),
        ({"n_numeric": 1, "categories": (1,)}, "2 or more categories"),
    ],
)
def test_tables_without_columns(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Columns(**settings)


def test_a_decoder_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows have 5 entries \(2 numeric, categories \[3\]\)"):
        Columns(2, (3,))(torch.zeros(4, 6), 1)


def test_only_binary_data_have_bernoulli_probabilities() -> None:
    grey, binary = Bernoulli(), Bernoulli(binary=True)
    assert (grey.density, binary.density) == (False, True)
    x = torch.tensor([[0.5]])
    assert grey(torch.zeros(1, 1), 1).support.check(x).all()
    assert not binary(torch.zeros(1, 1), 1).support.check(x).any()

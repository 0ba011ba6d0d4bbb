from typing import Any

import pytest
import torch
from torch.nn import functional

from svae.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood

LIKELIHOODS = [Bernoulli(), ContinuousBernoulli(), Gaussian(), Gaussian(bounded=False)]


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


@pytest.mark.parametrize("likelihood", LIKELIHOODS[:3])
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
    ("likelihood", "low", "high"), [(ContinuousBernoulli(), 0.0, 1.0), (Gaussian(), -3.0, 4.0)]
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

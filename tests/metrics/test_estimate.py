import math

import pytest
import torch
from scipy import stats

from svae.metrics import (
    Estimate,
    bootstrap,
    clustered_mean,
    clustered_proportion,
    exact_proportion,
    mean,
    proportion,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (37, 90), (990, 1000), (50, 50)])
def test_proportion_is_scipys_wilson(hits: int, n: int) -> None:
    exact = stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = proportion(torch.arange(n) < hits)
    assert found == pytest.approx((hits / n, exact.low, exact.high), abs=1e-12)


def test_mean_is_scipys_t() -> None:
    values = torch.randn(17, dtype=torch.float64)
    exact = stats.ttest_1samp(values.numpy(), 0.0).confidence_interval()
    assert mean(values) == pytest.approx((values.mean().item(), exact.low, exact.high))


def test_clusters_are_the_unit() -> None:
    by_image = torch.randn(1, 50)
    draws = by_image.expand(8, 50)
    assert clustered_mean(draws) == pytest.approx(mean(by_image))
    naive, clustered = mean(draws), clustered_mean(draws)
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_clustered_proportion_lies_between_images_and_draws() -> None:
    independent = torch.rand(8, 400) < 0.7
    same = (torch.rand(1, 400) < 0.7).expand(8, 400)
    assert clustered_proportion(same) == pytest.approx(proportion(same[:1]), abs=2e-3)
    width = [e.high - e.low for e in map(clustered_proportion, (independent, same))]
    assert 2 < width[1] / width[0] < 4  # about the root of 8
    certain = torch.ones(8, 400, dtype=torch.bool)
    assert clustered_proportion(certain) == proportion(certain[0])


def test_clustered_intervals_hold_their_level() -> None:
    rates = torch.distributions.Beta(9.0, 1.0).sample((400, 1, 60))
    hits = torch.rand(400, 8, 60) < rates
    held = [e.low <= 0.9 <= e.high for e in map(clustered_proportion, hits)]
    assert 0.92 < sum(held) / 400 < 0.98


def test_rare_hits_of_few_images_widen_the_interval() -> None:
    """A dozen draws of one image say little: with the normal quantile 91 % would hold."""
    generator = torch.Generator().manual_seed(0)
    rates = torch.distributions.Beta(0.01 * 3 / 7, 0.99 * 3 / 7).sample((1000, 1, 500))
    hits = torch.rand(1000, 8, 500, generator=generator) < rates
    held = [e.low <= 0.01 <= e.high for e in map(clustered_proportion, hits)]
    assert 0.93 < sum(held) / 1000 < 0.98


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (37, 90), (990, 1000), (50, 50)])
def test_one_draw_per_image_has_the_exact_interval(hits: int, n: int) -> None:
    wanted = stats.binomtest(hits, n).proportion_ci(method="exact")
    trials = torch.arange(n) < hits
    assert exact_proportion(trials) == pytest.approx((hits / n, wanted.low, wanted.high))
    assert clustered_proportion(trials[None]) == exact_proportion(trials)
    with pytest.raises(ValueError, match="at least one trial"):
        exact_proportion(trials[:0])


def test_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = torch.randn(500, dtype=torch.float64)
    found = bootstrap(lambda v: v.mean().item(), values, n=1000)
    assert found.value == values.mean().item()
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(500), rel=0.1)
    assert found == bootstrap(lambda v: v.mean().item(), values, n=1000)


def test_bootstrap_keeps_rows_together_and_bounds() -> None:
    a = torch.randn(50)
    same = bootstrap(lambda u, v: (u - v).abs().max().item(), a, a.clone())
    assert same == Estimate(0.0, 0.0, 0.0)
    found = bootstrap(lambda u: u.mean().item(), torch.tensor([0.0, 1.0]), bounds=(0.0, 1.0))
    assert found == (0.5, 0.0, 1.0)


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one trial; got none"):
        proportion(torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one trial; got none"):
        clustered_proportion(torch.zeros(8, 0, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 2 values; got 1"):
        mean(torch.zeros(1))
    with pytest.raises(ValueError, match=r"got the lengths \[3, 4\]"):
        bootstrap(lambda u, v: 0.0, torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="n >= 2 resamples; got 1"):
        bootstrap(lambda u: 0.0, torch.zeros(3), n=1)

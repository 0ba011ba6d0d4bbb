import pytest
import torch

from svae.bridges import allot, score
from tests.unchecked import as_a_user


def pairs(rho: float, n: int = 4000, d: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.randn(n, d)
    return a, rho * a + (1 - rho**2) ** 0.5 * torch.randn(n, d)


@pytest.mark.parametrize("rho", [0.2, 0.6, 0.95])
def test_the_score_is_the_mean_correlation(rho: float) -> None:
    found = score(*pairs(rho))
    assert found.value == pytest.approx(rho, abs=0.02)
    assert found.share == pytest.approx(rho, abs=0.03)
    assert found.null == pytest.approx(0, abs=0.01)


def test_a_concept_without_evidence_gets_no_dims() -> None:
    shares = [score(*pairs(0.0), seed=seed).share for seed in range(20)]
    assert shares == [0.0] * 20
    assert allot({"nothing": shares[0]}, 64) == {"nothing": 0}


def test_scale_and_offset_of_a_unit_do_not_matter() -> None:
    a, b = pairs(0.6)
    scale = torch.logspace(-3, 3, 10)
    assert score(scale * a + 5, scale * b + 5).value == pytest.approx(score(a, b).value, abs=1e-3)


def test_what_differs_is_the_evidence_of_pairs_that_differ() -> None:
    a = torch.randn(4000, 10)
    b = a.clone()
    b[:, :3] = torch.randn(4000, 3)  # three of ten units change with the concept
    assert score(a, b, differ=True).share == pytest.approx(0.3, abs=0.02)
    assert score(a, a.clone(), differ=True).share == 0.0


def test_units_that_are_constant_do_not_count() -> None:
    a, b = pairs(0.6)
    a[:, 0] = b[:, 0] = 1.0
    assert score(a, b).value == pytest.approx(0.6, abs=0.02)


def test_dims_follow_the_evidence_and_the_temperature() -> None:
    even = allot({"a": 1.0, "b": 1.0}, 30)
    assert even == {"a": 10, "b": 10}  # and ten for the residual
    assert allot({"a": 0.5}, 100) == {"a": 33}
    assert allot({"a": 0.5}, 100, temperature=0.5) == {"a": 20}
    assert allot({"a": 0.001}, 100) == {"a": 1}  # some evidence, so at least one


def test_more_concepts_than_dims_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 concepts need 3 dims .* the representation has 3"):
        allot({"a": 0.01, "b": 0.01, "c": 0.01}, 3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        allot({"a": 0.5}, 9, temperature)


def test_evidence_lies_between_none_and_all() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        allot({"a": 1.5}, 9)


def test_pairs_of_unequal_length_are_refused() -> None:
    with as_a_user(), pytest.raises(ValueError, match=r"got \(5, 2\) and \(4, 2\)"):
        score(torch.randn(5, 2), torch.randn(4, 2))

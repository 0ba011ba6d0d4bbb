import math

import pytest
import torch

from svae.metrics import (
    accuracy,
    brier,
    expected_calibration_error,
    negative_log_likelihood,
)


def known(right: int, n: int, confidence: float) -> tuple[torch.Tensor, torch.Tensor]:
    """``n`` predictions of class 0 with one confidence, ``right`` of them right."""
    logits = torch.tensor([confidence, 1 - confidence], dtype=torch.float64).log().expand(n, 2)
    return logits, (torch.arange(n) >= right).long()


def test_on_known_odds() -> None:
    logits, y = known(60, 100, 0.9)
    assert accuracy(logits, y).value == pytest.approx(0.6)
    nll = -(0.6 * math.log(0.9) + 0.4 * math.log(0.1))
    assert negative_log_likelihood(logits, y).value == pytest.approx(nll)
    assert brier(logits, y).value == pytest.approx(2 * (0.6 * 0.01 + 0.4 * 0.81))
    error = expected_calibration_error(logits, y)
    assert error.value == pytest.approx(0.3)
    assert error.low < 0.3 < error.high
    assert error.high - error.low == pytest.approx(2 * 1.96 * math.sqrt(0.24 / 100), rel=0.15)


def test_calibration_error_by_hand_over_bins() -> None:
    parts = [known(90, 100, 0.9), known(50, 100, 0.7), known(8, 10, 0.55)]
    logits, y = (torch.cat(part) for part in zip(*parts, strict=True))
    expected = (100 * 0.0 + 100 * 0.2 + 10 * 0.25) / 210
    assert expected_calibration_error(logits, y).value == pytest.approx(expected)
    # In one bin, over- and underconfidence cancel.
    assert expected_calibration_error(logits, y, n_bins=1).value == pytest.approx(17.5 / 210)


def test_bins_are_equal_in_width_and_open_to_the_left() -> None:
    # .5 and .5 + a little lie on the two sides of an edge of two bins.
    logits, y = (
        torch.cat(part) for part in zip(known(0, 10, 0.5), known(10, 10, 0.5001), strict=True)
    )
    assert expected_calibration_error(logits, y, n_bins=2).value == pytest.approx(0.5, abs=1e-3)


def test_calibrated_is_near_zero_and_certain_is_exact() -> None:
    probabilities = torch.rand(20000, dtype=torch.float64)
    logits = torch.stack([probabilities, 1 - probabilities], 1).log()
    y = (torch.rand(20000) > probabilities).long()
    assert expected_calibration_error(logits, y).value < 0.02
    perfect = 100 * torch.nn.functional.one_hot(y).double()
    assert accuracy(perfect, y).value == 1
    assert expected_calibration_error(perfect, y).value == pytest.approx(0)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"labels must lie in 0..1.*got 0..2"):
        accuracy(torch.zeros(3, 2), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"got -1..0.*Drop unlabelled"):
        brier(torch.zeros(2, 2), torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match="at least 1; got 0 and 0"):
        negative_log_likelihood(torch.zeros(0, 2), torch.zeros(0).long())
    with pytest.raises(ValueError, match="n_bins must be at least 1; got 0"):
        expected_calibration_error(torch.zeros(2, 2), torch.tensor([0, 1]), n_bins=0)

"""Bridges against the mean translator, and what v still says of the source."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import svae
from svae import translating
from svae.bridges import MeanTranslator, TranslationObjective, Vectors
from svae.data import PairedData, paired
from svae.metrics import Estimate
from svae.translating import (
    Comparison,
    compare,
    explained,
    pairs_of,
    residual_gap,
    translated,
)
from tests.translators import Shift, linear_pairs, small

Fitted = tuple[svae.TranslationBridge, MeanTranslator, PairedData]
QUIET: dict[str, Any] = {"enable_progress_bar": False}


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    c, y = linear_pairs()
    data = paired(c, y, bounded=False)
    bridge = small()
    svae.fit(bridge, data, objective=TranslationObjective(noise=0.0), max_epochs=15, **QUIET)
    mean = MeanTranslator(Vectors(2), Shift(), context=32, hidden=(32,))
    svae.fit(mean, data, max_epochs=15, **QUIET)
    return bridge, mean, data


def test_the_mean_translator_says_how_much_is_determined(fitted: Fitted) -> None:
    bridge, mean, data = fitted
    y, c = data.test.floats(), data.source_inputs["test"]
    shares = torch.tensor([0.09 / 1.09, 0.09 / 0.59, 0.09 / 1.09])  # of the noise, by dim
    assert explained(mean, y, c).value == pytest.approx(1 - float(shares.mean()), abs=0.04)
    found = compare(bridge, mean, y, c, features=lambda x: x)
    assert found.frechet_flow is not None
    assert found.frechet_mean is not None
    assert found.frechet_flow.value < found.frechet_mean.value
    assert found.better == "draws"
    assert "draws are the better" in found.sentence
    drawn = mean.translate(c[:3], n=4)
    assert drawn.shape == (4, 3, 3)
    assert torch.equal(drawn[0], drawn[3])  # there is one mean only
    assert translated(mean, y[:3], c[:3]).shape == (3, 3)


def at(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


@pytest.mark.parametrize(
    ("share", "flow", "mean", "case", "better"),
    [
        (0.95, None, None, "determined", None),
        (0.5, None, None, "ambiguous", None),
        (0.95, at(0.3, 0.01), at(0.2, 0.01), "determined", "mean"),
        (0.2, at(3.0, 0.2), at(2.9, 0.2), "ambiguous", "either"),
        (0.99, at(0.020, 0.002), at(0.027, 0.002), "determined", "draws"),
    ],
)
def test_the_case_is_how_much_is_open_and_the_better_one_is_measured(
    share: float, flow: Estimate | None, mean: Estimate | None, case: str, better: str | None
) -> None:
    found = Comparison(at(share, 0.01), flow, mean)
    assert (found.case, found.better) == (case, better)
    assert ("little to draw" in found.sentence) == (case == "determined")
    assert ("Fréchet" in found.sentence) == (better is not None)


def test_diversity_is_that_of_the_source_that_is_given(fitted: Fitted) -> None:
    bridge, mean, _ = fitted
    generator = torch.Generator().manual_seed(3)
    c = torch.randn(40, 2, generator=generator).repeat_interleave(10, 0)
    mix = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]])
    y = (c @ mix.T + 0.3 * torch.randn(400, 3, generator=generator) + 1) / 2
    groups = torch.arange(40).repeat_interleave(10)
    found = compare(bridge, mean, y, c, groups, generator=generator)
    assert found.diversity is not None
    assert found.diversity.value == pytest.approx(1, abs=0.15)
    with pytest.raises(ValueError, match="no two inputs share a group"):
        compare(bridge, mean, y, c, torch.arange(400))


def test_two_targets_are_not_compared(fitted: Fitted) -> None:
    class Other(Shift):
        def encode(self, x: Tensor) -> Tensor:
            return 3 * x

        def decode(self, code: Tensor) -> Tensor:
            return code / 3

    bridge, _, data = fitted
    mean = MeanTranslator(Vectors(2), Other(), context=8, hidden=(8,))
    with pytest.raises(ValueError, match="another target"):
        compare(bridge, mean, data.test.floats(), data.source_inputs["test"])


def test_the_gap_is_nothing_where_v_is_normal_whatever_the_source(fitted: Fitted) -> None:
    bridge, _, data = fitted
    assert abs(residual_gap(bridge, data, max_epochs=3, **QUIET).value) < 0.25


def test_the_gap_sees_a_bridge_that_knows_its_training_pairs_by_heart() -> None:
    c, y = linear_pairs(1000)
    few = paired(c[:60], y[:60], bounded=False, batch_size=16)
    bridge = small()
    svae.fit(bridge, few, objective=TranslationObjective(noise=0.0), max_epochs=1, **QUIET)
    bridge.train()
    optimizer = torch.optim.Adam(bridge.flow.parameters(), 3e-3)
    for _ in range(300):  # past the epoch that fit would take
        optimizer.zero_grad()
        code = bridge.code(few.train.floats())
        (-bridge.log_prob(code, few.source_inputs["train"]).mean()).backward()
        optimizer.step()
    bridge.eval()
    # New pairs are far from where it expects them, those of its training are not.
    new = svae.data.ArraySet(y[60:], torch.zeros(940, dtype=torch.int64))
    data = svae.data.ArrayData(few.train, few.validation, new, ("any",), bounded=False)
    sources = {**few.source_inputs, "test": c[60:]}
    assert residual_gap(bridge, PairedData(data, sources), max_epochs=30, **QUIET).value > 1


@pytest.mark.slow
def test_the_gap_sees_what_v_still_says_of_the_source(fitted: Fitted) -> None:
    bridge, _, data = fitted
    assert abs(residual_gap(bridge, data, max_epochs=15, **QUIET).value) < 0.15
    blank = small()  # its v is the code, whatever the source: I(code; c) is all there to be told
    mix = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]])
    covariance = mix @ mix.T + 0.09 * torch.eye(3)
    information = 0.5 * float(torch.logdet(covariance / 0.09))
    blank.standardise(data.source_inputs["train"])
    # Far from standard normal as well, so that the densities' units count.
    scale = 2.0
    c, y = linear_pairs(20_000)  # of which a thousand are measured on
    data = paired(c, (scale * (2 * y - 1) + 1) / 2, bounded=False)
    apart = 0.5 * float(scale**2 * covariance.trace() - 3 - torch.logdet(scale**2 * covariance))
    found = residual_gap(blank, data, max_epochs=3, **QUIET)
    assert found.value == pytest.approx(information + apart, abs=0.6)
    assert found.value > apart + 0.6 * information  # the most of it is of the source


def test_the_gap_of_pictures_is_looked_for_in_pictures_and_in_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    c, y = linear_pairs(120)
    pictures = c[:, :1, None, None].expand(-1, 1, 6, 6).contiguous()
    data = paired(pictures, y, bounded=False)
    bridge = small(source=Vectors((1, 6, 6)))
    seen = []

    class Noting(svae.TranslationBridge):
        def __init__(self, source: Any, *given: Any, **more: Any) -> None:
            super().__init__(source, *given, **more)
            seen.append(self.shape)

    monkeypatch.setattr(translating, "TranslationBridge", Noting)
    residual_gap(bridge, data, max_epochs=1, **QUIET)
    assert seen == [(1, 6, 6)] * 2 + [(36,)] * 2


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (40, "needs 10 validation and half of the test pairs or more, got 6"),
        (11, "needs 10 training pairs or more, got 9"),
    ],
)
def test_a_gap_of_few_pairs_is_refused(n: int, message: str) -> None:
    c, y = linear_pairs(n)
    with pytest.raises(ValueError, match=message):
        residual_gap(small(), paired(c, y, bounded=False), **QUIET)


def test_one_target_whose_codes_are_draws_is_compared() -> None:
    class Draws(Shift):
        def encode(self, x: Tensor) -> Tensor:
            return super().encode(x) + torch.randn_like(x)

    c, y = linear_pairs(50)
    bridge = small(Draws())
    mean = MeanTranslator(bridge.source, bridge.target, context=8, hidden=(8,))
    assert compare(bridge, mean, y, c).explained.value < 1


def test_views_are_taken_part_by_part_and_without_gradients() -> None:
    sizes = []

    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x @ self.weight.detach().requires_grad_()

    _, y = linear_pairs(3000)
    data = svae.data.as_data((y.clamp(0, 1), torch.zeros(3000, dtype=torch.int64)))
    bridge = svae.TranslationBridge(Vectors(2), Shift(), View(), n_blocks=2)
    x, source = pairs_of(bridge, data, "train")
    assert len(source) == len(x) > 1000
    assert max(sizes) <= 500
    assert not source.requires_grad

import pytest
import torch
from torch import Tensor

import svae
from svae.shortcuts import factor_effects, reactions


@pytest.fixture(scope="module")
def coloured() -> svae.data.ArrayData:
    return svae.data.ColouredDigits(svae.data.Digits(), "uniform", seed=0)


def red(x: Tensor) -> Tensor:
    """Answers by the colour alone."""
    strength = x.amax((2, 3))
    score = 8 * (strength[:, 0] - strength[:, 1])
    return torch.stack([score, -score], 1)


def upper(x: Tensor) -> Tensor:
    """Answers by where the brightness lies, whatever the colour."""
    grey = x.amax(1)
    height = grey.shape[1] // 2
    score = 0.5 * (grey[:, :height].sum((1, 2)) - grey[:, height:].sum((1, 2)))
    return torch.stack([score, -score], 1)


def test_a_classifier_by_colour_reacts_to_hue_first(coloured: svae.data.ArrayData) -> None:
    x = coloured.test.floats(limit=150)
    found = reactions(red, x)
    assert found[0].name == "hue"
    assert found[0].effect.low > 2 * found[1].effect.high
    assert found[0].flip_rate.value > 0.9
    by_name = {one.name: one for one in found}
    assert by_name["rotation"].effect.value < 0.2


def test_a_classifier_by_place_reacts_to_places(coloured: svae.data.ArrayData) -> None:
    x = coloured.test.floats(limit=150)
    by_name = {one.name: one for one in reactions(upper, x)}
    assert by_name["position"].effect.low > 5 * by_name["hue"].effect.high
    assert by_name["hue"].flip_rate.value < 0.05  # bytes are rounded


def test_the_kl_is_that_of_the_strongest_amount(coloured: svae.data.ArrayData) -> None:
    x = coloured.test.floats(limit=40)
    operators = (svae.sketches.Brightness(0.9), svae.sketches.Brightness(0.5))
    found = reactions(red, x, {"dim": operators})
    first = red(x).log_softmax(1)
    kl = [(first.exp() * (first - red(o(x)).log_softmax(1))).sum(1) for o in operators]
    assert found[0].effect.value == pytest.approx(float(torch.stack(kl).amax(0).mean()), rel=1e-5)


def test_factors_that_move_the_logits_within_a_class_are_found(
    coloured: svae.data.ArrayData,
) -> None:
    x, y, factors = coloured.test.floats(), coloured.test.marked, coloured.test.factors
    assert factors is not None
    noise = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(0))
    columns = torch.cat([factors, noise], 1)
    found = factor_effects(red(x), y, columns, (*coloured.factor_names, "unrelated"))
    assert {one.name for one in found if one.used} == {"red", "green"}
    assert {one.name for one in found[:2]} == {"red", "green"}
    honest = factor_effects(upper(x), y, columns, (*coloured.factor_names, "unrelated"))
    assert not any(one.used for one in honest)


def test_a_line_of_known_share() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3000) % 3
    v, noise = torch.randn(2, 3000, generator=generator)
    logits = torch.stack([10.0 * y + 3 * v + 4 * noise, torch.zeros(3000)], 1)
    found = factor_effects(logits, y, v[:, None], ["v"])[0]
    assert found.share.value == pytest.approx(9 / 25, abs=0.04)
    assert 0.03 < found.share.high - found.share.low < 0.08
    assert found.null < 0.01


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        reactions(red, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"must fit, got 4, 4, \(4, 2\) and 1"):
        factor_effects(torch.rand(4, 2), torch.zeros(4).long(), torch.rand(4, 2), ["a"])

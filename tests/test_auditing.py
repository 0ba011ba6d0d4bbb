import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from svae.auditing import Audit, AuditSettings, Gate, audit, compare, failed
from svae.data import ArrayData, ArraySet
from svae.judge import Judge
from svae.latent import Latent
from svae.metrics import Estimate
from tests.metrics.halves import Halves, judge, pictures

SETTINGS = AuditSettings(n_draws=4, n_samples=3, n_codes=600)


class Known(Judge):
    """Knows the brighter half, and has the pixels for features."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, x: Tensor) -> Tensor:
        return judge(x)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Clean(Halves):
    """The nuisance without the side, which it should not know."""

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        latent = super().encode(x)
        return latent._replace(z_nuisance=latent.z_nuisance * torch.tensor([1.0, 0.0]))


def halves() -> ArrayData:
    parts = [ArraySet(*pictures(n, seed)) for seed, n in enumerate((800, 400, 600))]
    return ArrayData(*parts, class_names=("left", "right"), name="halves")


def drawn(y: Tensor) -> Tensor:
    """True samples of given classes."""
    u = torch.randn(len(y)).clamp(-4, 4)
    return Halves().decode(Latent(1.0 - 2 * y[:, None], torch.stack([u, u], 1)))


@pytest.fixture(scope="module")
def clean() -> Audit:
    torch.manual_seed(0)
    return audit(Clean(), halves(), Known(), SETTINGS, drawn)


def value(result: Audit, name: str) -> float:
    number = result.numbers[name]
    return number.value if isinstance(number, Estimate) else float(number)


@pytest.mark.parametrize(
    "name",
    [
        "test_accuracy",
        "test_accuracy_3_samples",
        "judge_accuracy",
        "reconstruction_preservation",
        "preservation",
        "preservation_swapped",
        "preservation_self",
        "preservation_swapped_self",
        "switch_rate",
        "probe_class_means_linear",
        "probe_class_means_mlp",
        "probe_class_means_knn",
    ],
)
def test_a_perfect_factorization_reaches(clean: Audit, name: str) -> None:
    found = clean.numbers[name]
    assert isinstance(found, Estimate)
    assert found.value == found.high == 1
    assert 0.98 < found.low < 1


def test_a_perfect_factorization_has_nothing_to_read_and_all_to_show(clean: Audit) -> None:
    assert value(clean, "chance") == 0.5
    for codes in ("samples", "means"):
        for probe in ("linear", "mlp", "knn", "strongest"):
            assert value(clean, f"leakage_{codes}_{probe}") == pytest.approx(0.5, abs=0.07)
    assert value(clean, "diversity_ratio") == pytest.approx(1, abs=0.06)
    assert value(clean, "conditional_coverage") > 0.93
    assert value(clean, "conditional_coverage_floor") > 0.93
    for name in ("fid", "fid_floor", "fid_reconstructed", "kid", "kid_floor"):
        assert abs(value(clean, name)) < 0.005
    for name in ("precision", "recall", "density", "coverage"):
        assert value(clean, name) == pytest.approx(value(clean, f"{name}_floor"), abs=0.08)
        assert value(clean, name) > 0.85


def test_the_likelihood_of_the_label_is_that_of_the_logits(clean: Audit) -> None:
    x, y = pictures(600, 2)
    wanted = float(functional.cross_entropy(judge(x), y))
    assert value(clean, "nll") == pytest.approx(wanted, abs=1e-6)
    # Always right at a confidence of sigmoid(level): the whole doubt is error of calibration.
    doubt = 1 - float(judge(x).softmax(1).max(1).values.mean())
    assert value(clean, "ece") == pytest.approx(doubt, abs=1e-4)


def test_a_nuisance_that_knows_the_class_is_found_out() -> None:
    result = audit(Halves(), halves(), Known(), SETTINGS)
    assert value(result, "preservation") == 1
    assert value(result, "leakage_samples_strongest") == 1
    assert value(result, "leakage_means_strongest") == 1


class LeakySamples(Clean):
    """Posterior samples know the side, posterior means do not."""

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Halves.encode(self, x) if sample else super().encode(x)


def test_samples_and_means_are_probed_apart() -> None:
    result = audit(LeakySamples(), halves(), Known(), SETTINGS)
    assert value(result, "leakage_samples_strongest") == 1
    assert value(result, "leakage_means_strongest") == pytest.approx(0.5, abs=0.07)


def test_a_decoder_that_reads_the_class_from_the_nuisance_is_found_out() -> None:
    result = audit(Halves(reads_nuisance=True), halves(), Known(), SETTINGS)
    assert value(result, "reconstruction_preservation") == 1
    assert value(result, "switch_rate") == 0
    for name in ("preservation", "preservation_swapped", "preservation_self"):
        assert value(result, name) == pytest.approx(0.5, abs=0.07)


def test_a_collapsed_nuisance_preserves_and_shows_nothing() -> None:
    result = audit(Clean(spread=0.0), halves(), Known(), SETTINGS)
    assert value(result, "preservation") == 1
    assert value(result, "diversity_ratio") == 0
    assert value(result, "conditional_coverage") < 0.2
    assert value(result, "recall") < 0.2
    assert value(result, "fid") > 10 * value(result, "fid_floor")


def test_fidelity_is_that_of_the_samples_given() -> None:
    swapped = audit(Clean(), halves(), Known(), SETTINGS, lambda y: drawn(torch.zeros_like(y)))
    assert value(swapped, "coverage") == pytest.approx(0.5, abs=0.1)
    assert value(swapped, "conditional_coverage") > 0.93


def test_what_the_decoder_leaves_out_is_told_apart_from_what_is_drawn(clean: Audit) -> None:
    class Dark(Clean):
        def decode(self, latent: Latent) -> Tensor:
            return super().decode(latent) - 0.1

    torch.manual_seed(0)
    result = audit(Dark(), halves(), Known(), SETTINGS, drawn)
    # A mean that is .1 off in each of the features, and no other covariance.
    n = Known().features(pictures(2, 0)[0]).shape[1]
    assert value(result, "fid_reconstructed") == pytest.approx(n * 0.01, rel=1e-3)
    assert value(result, "fid") == pytest.approx(value(clean, "fid"), abs=1e-6)


def test_same_seed_same_numbers_and_no_trace(clean: Audit, tmp_path: Path) -> None:
    torch.manual_seed(17)
    before = torch.get_rng_state()
    again = audit(Clean(), halves(), Known(), SETTINGS, drawn)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.flat() == clean.flat()
    again.save(tmp_path / "audit.json")
    assert json.loads((tmp_path / "audit.json").read_text()) == clean.flat()


def test_flat_puts_intervals_beside_values() -> None:
    result = Audit({"rate": Estimate(0.5, 0.4, 0.6), "n": 3, "likelihood": "Bernoulli"})
    assert result.flat() == {
        "rate": 0.5,
        "rate_low": 0.4,
        "rate_high": 0.6,
        "n": 3,
        "likelihood": "Bernoulli",
    }


def test_the_test_set_can_be_cut() -> None:
    settings = AuditSettings(n_draws=2, n_samples=2, n_codes=100, n_test=100)
    found = audit(Clean(), halves(), Known(), settings).numbers["test_accuracy"]
    assert isinstance(found, Estimate)
    assert found.low == pytest.approx(100 / (100 + 1.96**2), abs=1e-4)


def test_a_certificate_says_where_answers_flip(clean: Audit) -> None:
    for name in ("flip_rate", "flip_rate_class_0", "flip_rate_class_1", "flip_rate_dim_0"):
        found = clean.numbers[name]
        assert isinstance(found, Estimate)
        assert found.value == 0
        assert 0 < found.high < 0.02
    assert value(clean, "cycle_distance") == 0
    assert value(clean, "moved_pixels_dim_1") == 0
    assert value(clean, "moved_pixels_dim_0") == pytest.approx(
        value(clean, "moved_pixels"), rel=0.1
    )
    null = clean.numbers["leakage_null"]
    assert isinstance(null, Estimate)
    assert null.low < 0.5 < null.high


def test_the_dim_that_decides_is_named() -> None:
    result = audit(Halves(reads_nuisance=True), halves(), Known(), SETTINGS)
    assert value(result, "flip_rate") == pytest.approx(0.5, abs=0.05)
    assert value(result, "flip_rate_dim_0") == 0
    assert value(result, "flip_rate_dim_1") == pytest.approx(0.5, abs=0.06)
    assert value(result, "margin_change") < 0


def test_attributes_are_looked_for_in_both_blocks() -> None:
    def with_factors(part: ArraySet) -> ArraySet:
        x = part.floats()
        level = x[:, 0].amax((1, 2))
        side = torch.randn(len(x), generator=torch.Generator().manual_seed(len(x)))
        return ArraySet(part.x, part.y, torch.stack([level, side], 1))

    data = halves()
    data.train, data.test = with_factors(data.train), with_factors(data.test)
    data.factor_names = ("level", "unrelated")
    result = audit(Clean(), data, Known(), SETTINGS)
    assert value(result, "attribute_level_in_nuisance") > 0.97
    for name in ("level_in_class", "unrelated_in_class", "unrelated_in_nuisance", "null_in_class"):
        assert abs(value(result, f"attribute_{name}")) < 0.05


def test_conditions_that_hold_and_should_not_are_said() -> None:
    numbers = {"flip_rate": 0.03, "flip_rate_high": 0.04, "dataset": "mnist", "empty": math.nan}
    assert failed(numbers, ["flip_rate > 0.02", "flip_rate_high>=.05", "flip_rate < .01"]) == [
        "flip_rate > 0.02 (it is 0.03)"
    ]
    assert failed(numbers, ["empty > 1"]) == ["empty > 1 (it is nan)"]
    assert str(Gate.parse("flip_rate <= 2e-2")) == "flip_rate <= 0.02"
    for text in ("flip_rate", "flip_rate = 0.02", "flip_rate > much", "a b > 1"):
        with pytest.raises(ValueError, match="is no condition, expected a name, one of"):
            failed(numbers, [text])
    with pytest.raises(ValueError, match="no number 'fliprate'; did you mean flip_rate"):
        failed(numbers, ["fliprate > 1"])
    with pytest.raises(ValueError, match="no number 'dataset'"):
        failed(numbers, ["dataset > 1"])


def flat(**numbers: tuple[float, float]) -> dict[str, float | int | str]:
    """Values with standard errors, as an audit holds them."""
    found: dict[str, float | int | str] = {}
    for name, (number, error) in numbers.items():
        found |= {name: number, f"{name}_low": number - 1.96 * error}
        found[f"{name}_high"] = number + 1.96 * error
    return found


def test_changes_are_tested_together() -> None:
    before = flat(a=(0.5, 0.03), b=(0.9, 0.01), c=(0.1, 0.04)) | {"chance": 0.1}
    after = flat(a=(0.5, 0.04), b=(0.8, 0.01), c=(0.2, 0.03), d=(1.0, 0.1)) | {"chance": 0.2}
    found = {one.name: one for one in compare(before, after)}
    assert set(found) == {"a", "b", "c"}
    assert next(iter(found)) == "b"
    assert found["b"].significant
    # z = .1 / .05 = 2: by itself below .05, not among three.
    assert found["c"].p_value == pytest.approx(0.0455, abs=1e-3)
    assert not found["c"].significant
    assert found["a"].p_value == 1
    assert "0.9 -> 0.8 (-0.1" in str(found["b"])
    assert str(found["b"]).endswith(" *")
    with pytest.raises(ValueError, match="no number with an interval in common"):
        compare({"chance": 0.1}, after)


def test_chance_is_found_significant_as_often_as_said() -> None:
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for _ in range(400):
        draws = torch.randn(2, 10, generator=generator)
        one, two = (flat(**{f"n{i}": (float(v), 1.0) for i, v in enumerate(row)}) for row in draws)
        wrong += any(c.significant for c in compare(one, two))
    assert 0.02 < wrong / 400 < 0.09


def test_what_breaks_the_protocol_is_not_measured() -> None:
    class Collapsed(Halves):
        def encode(self, x: Tensor, sample: bool = False) -> Latent:
            return super().encode(x)._replace(z_nuisance=torch.zeros(len(x), 0))

    with pytest.raises(ValueError, match="without a nuisance there is nothing to audit"):
        audit(Collapsed(), halves(), Known(), SETTINGS)


def test_layers_are_certified_one_by_one() -> None:
    layers = {"first": Clean(), "last.one": Halves(reads_nuisance=True)}
    found = audit(Clean(), halves(), Known(), SETTINGS, layers=layers)
    for name in ("flip_rate", "margin_change", "moved_pixels", "cycle_distance"):
        assert found.numbers[f"{name}_layer_first"] == found.numbers[name]
    assert value(found, "flip_rate_layer_last.one") == pytest.approx(0.5, abs=0.05)
    condition = "flip_rate_layer_last.one > 0.02"
    assert len(failed(found.flat(), [condition, "flip_rate_layer_first > 0.02"])) == 1


def test_a_layer_that_is_the_model_itself_is_drawn_once() -> None:
    class Counted(Clean):
        drawn = 0

        def sample_nuisance(self, latent: Latent, n: int, generator: Any = None) -> Tensor:
            self.drawn += 1
            return super().sample_nuisance(latent, n, generator)

    alone, both = Counted(), Counted()
    audit(alone, halves(), Known(), SETTINGS)
    found = audit(both, halves(), Known(), SETTINGS, layers={"all": both})
    assert found.numbers["flip_rate_layer_all"] == found.numbers["flip_rate"]
    assert both.drawn == alone.drawn


def test_how_different_draws_look_is_as_the_user_says() -> None:
    assert (
        "moved_perceptual" not in audit(Clean(), halves(), Known(), SETTINGS).numbers
    )  # 2 pixels

    def brightness(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).mean(1).abs()

    found = audit(Clean(), halves(), Known(), SETTINGS, perceptual=brightness)
    # Draws differ from their input as two inputs do.
    assert value(found, "moved_perceptual") == pytest.approx(1, abs=0.1)

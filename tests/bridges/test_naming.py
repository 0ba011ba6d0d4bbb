from typing import Any

import pytest
import torch

from svae.bridges import Attribute, Classes, Concept, Pairs, Sketched, Together
from svae.bridges.naming import pairs_of_values
from svae.data import ArraySet


class Brighter:
    """A concept at two values."""

    name = "brightness"

    def render(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.5 * x, 0.9 * x


def pictures(**parts: Any) -> ArraySet:
    return ArraySet(torch.rand(12, 1, 4, 4), **parts)


CONCEPTS = [
    Classes(),
    Attribute("shade"),
    Pairs("pose", torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)),
    Sketched(Brighter()),
]


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.name)
def test_every_way_to_name_one_is_a_concept(concept: Any) -> None:
    assert isinstance(concept, Concept)
    assert concept.is_class == isinstance(concept, Classes)
    found = concept.evidence(pictures(y=torch.arange(12) % 3, factors=torch.rand(12, 2)))
    assert (found.values is None) != (found.first is None)


def test_classes_are_the_labels_soft_ones_too() -> None:
    y = torch.tensor([0, 1, -1] * 4)
    assert Classes().evidence(pictures(y=y)).values.tolist() == y.tolist()  # pyright: ignore
    soft = torch.tensor([[0.9, 0.1], [0.2, 0.8]] * 6)
    assert Classes().evidence(pictures(y=soft)).values.tolist() == [0, 1] * 6  # pyright: ignore


def test_classes_need_labels() -> None:
    with pytest.raises(ValueError, match=r"the data have no labels.*predict"):
        Classes("digit").evidence(pictures())


def test_whole_numbers_are_values_and_others_are_cut() -> None:
    factors = torch.stack([torch.arange(12.0) % 4, torch.linspace(0, 1, 12)], 1)
    factors[5, 0] = torch.nan
    examples = pictures(factors=factors)
    whole = Attribute("a").evidence(examples).values
    assert whole.tolist() == [0, 1, 2, 3, 0, -1, 2, 3, 0, 1, 2, 3]  # pyright: ignore
    cut = Attribute("b", column=1, n_bins=3).evidence(examples).values
    assert cut.bincount().tolist() == [4, 4, 4]  # pyright: ignore
    own = Attribute("c", values=lambda table: table[:, 1] > 0.5).evidence(examples).values
    assert own.tolist() == [0] * 6 + [1] * 6  # pyright: ignore


def test_an_attribute_needs_its_column() -> None:
    with pytest.raises(ValueError, match="column 0 of the data's factors, which have none"):
        Attribute("a").evidence(pictures())
    with pytest.raises(ValueError, match=r"column 7 .* have 2 columns"):
        Attribute("a", column=7).evidence(pictures(factors=torch.rand(12, 2)))
    with pytest.raises(ValueError, match="n_bins must be at least 2"):
        Attribute("a", n_bins=1)


def test_pairs_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs of 'pose' .* got \(3, 2\) and \(4, 2\)"):
        Pairs("pose", torch.rand(3, 2), torch.rand(4, 2))


@pytest.mark.parametrize("n", [0, 1])
def test_a_concept_without_pairs_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"'pose' has {n} pairs, expected two or more"):
        Pairs("pose", torch.rand(n, 2), torch.rand(n, 2))


def test_a_sketch_gives_three_pairs_of_each_picture() -> None:
    examples = pictures()
    found = Sketched(Brighter(), n_pictures=5).evidence(examples)
    x = examples.x[:5]
    assert found.differ
    assert found.first is not None
    assert found.second is not None
    assert torch.equal(found.first, torch.cat([x, x, 0.5 * x]))
    assert torch.equal(found.second, torch.cat([0.5 * x, 0.9 * x, 0.9 * x]))


def test_pairs_of_two_kinds_are_one_concept() -> None:
    share = Pairs("pose", torch.rand(3, 2), torch.rand(3, 2))
    differ = Pairs("pose", torch.rand(4, 2), torch.rand(4, 2), differ=True)
    both = Together([share, differ])
    assert both.name == "pose"
    found = both.evidence(pictures())
    assert found.first is share.first
    assert not found.differ
    assert [more.first is differ.first for more in found.more] == [True]
    assert found.more[0].differ
    with pytest.raises(ValueError, match=r"one concept, got those of \['hue', 'pose'\]"):
        Together([share, Pairs("hue", torch.rand(3, 2), torch.rand(3, 2))])


def test_pairs_of_a_value_share_it_and_are_no_examples_with_themselves() -> None:
    values = torch.tensor([0, 1, 2, -1] * 50)
    first, second = pairs_of_values(values, torch.Generator().manual_seed(0))
    assert torch.equal(values[first], values[second])
    assert bool((values[first] >= 0).all())
    assert not bool((first == second).any())
    assert set(values[first].tolist()) == {0, 1, 2}
    few, _ = pairs_of_values(values, torch.Generator().manual_seed(0), limit=7)
    assert len(few) == 7

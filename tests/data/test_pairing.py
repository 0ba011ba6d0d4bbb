"""Pairs: what belongs together stays together, whatever it came in."""

import numpy as np
import pytest
import torch

from svae.data import PairedData, paired
from tests.translators import pictures


def marked(n: int) -> torch.Tensor:
    """Pictures that say their own number."""
    return (torch.arange(n).float() / n)[:, None, None, None].expand(n, 1, 8, 8)


def test_a_column_is_paired_by_place_and_not_by_its_labels() -> None:
    pandas = pytest.importorskip("pandas")
    n = 40
    order = np.random.default_rng(0).permutation(n)
    table = pandas.DataFrame({"caption": [f"number {i}" for i in range(n)]}).loc[order]
    target = marked(n)[torch.from_numpy(order)]
    data = paired(table["caption"], target)
    for name in ("train", "validation", "test"):
        numbers = (getattr(data, name).floats()[:, 0, 0, 0] * n).round().int().tolist()
        assert data.source_inputs[name] == [f"number {i}" for i in numbers]
    numeric = paired(pandas.DataFrame({"a": order, "b": order}), target)
    assert numeric.source_inputs["test"].shape == (4, 2)


def test_arrays_are_as_good_as_tensors() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    found = paired(vectors, torch.rand(20, 1, 8, 8)).source_inputs["train"]
    assert isinstance(found, torch.Tensor)
    assert found.shape == (16, 3)
    data = pictures()
    again = PairedData(data, lambda part: np.zeros((len(part), 2)))
    assert isinstance(again.source_inputs["test"], torch.Tensor)
    words = paired(np.array(["one", "two"] * 10), torch.rand(20, 1, 8, 8))
    assert set(words.source_inputs["train"]) == {"one", "two"}


def test_lists_of_numbers_are_as_good_as_tensors() -> None:
    pictures = np.zeros((20, 1, 8, 8), dtype=np.float32)
    labels = paired([0, 1] * 10, pictures, y=[0, 1] * 10)
    assert labels.train.y is not None
    assert torch.equal(labels.source_inputs["train"], labels.train.y)
    assert labels.train.x.shape == (16, 1, 8, 8)
    attributes = paired([[0.5, 1], (2.0, 3)] * 10, pictures).source_inputs["test"]
    assert attributes.dtype.is_floating_point
    assert sorted(set(attributes.flatten().tolist())) == sorted({0.5, 1.0, 2.0, 3.0})
    drawn = [torch.zeros(2)] * 20
    assert paired(drawn, pictures).source_inputs["train"] == drawn[:16]
    assert paired(["one", 2] * 10, pictures).source_inputs["train"][0] in ("one", 2)


@pytest.mark.parametrize("n", [15, 30])
def test_labels_of_pairs_are_as_many(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} labels came with 20 pairs: y has one for each"):
        paired(torch.rand(20, 2), torch.rand(20, 1, 8, 8), y=torch.zeros(n, dtype=torch.int64))

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svae import Latent, LatentSplit
from tests.unchecked import as_a_user

SIZES = st.integers(1, 9)
BATCHES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@settings(max_examples=30)
@given(n_class=SIZES, n_nuisance=SIZES, batch=BATCHES)
def test_join_undoes_split(n_class: int, n_nuisance: int, batch: tuple[int, ...]) -> None:
    split = LatentSplit(n_class, n_nuisance)
    z = torch.randn(*batch, n_class + n_nuisance)
    latent = split.split(z)
    assert latent.z_class.shape == (*batch, n_class)
    assert latent.z_nuisance.shape == (*batch, n_nuisance)
    assert torch.equal(split.join(latent), z)


@settings(max_examples=30)
@given(n_class=SIZES, n_nuisance=SIZES, batch=BATCHES)
def test_split_undoes_join(n_class: int, n_nuisance: int, batch: tuple[int, ...]) -> None:
    split = LatentSplit(n_class, n_nuisance)
    latent = Latent(torch.randn(*batch, n_class), torch.randn(*batch, n_nuisance))
    joined = split.join(latent)
    assert joined.shape[-1] == split.n_features == n_class + n_nuisance
    for part, again in zip(latent, split.split(joined), strict=True):
        assert torch.equal(part, again)


def test_class_comes_first() -> None:
    latent = LatentSplit(n_class=2, n_nuisance=3).split(torch.arange(5.0))
    assert latent.z_class.tolist() == [0, 1]
    assert latent.z_nuisance.tolist() == [2, 3, 4]
    assert Latent._fields == ("z_class", "z_nuisance")


def test_map_reaches_both_parts() -> None:
    latent = Latent(torch.ones(4, 2), torch.zeros(4, 3)).map(lambda part: part[1:] + 1)
    assert torch.equal(latent.z_class, torch.full((3, 2), 2.0))
    assert torch.equal(latent.z_nuisance, torch.ones(3, 3))


@pytest.mark.parametrize(
    ("width", "match"),
    [
        (7, r"7 features, the split needs 8 \(6 class \+ 2 nuisance\).*Build the encoder"),
        (16, r"16 features, the split needs 8 \(6 class .* 2 nuisance.*chunk"),
    ],
)
def test_a_wrong_width_is_named(width: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LatentSplit(6, 2).split(torch.zeros(3, width))


def test_swapped_parts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 class and 2 nuisance .* 2 class . 3 nuisance"):
        LatentSplit(2, 3).join(Latent(torch.zeros(1, 3), torch.zeros(1, 2)))


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ((0, 3), "n_class must be at least 1, got 0.*plain VAE"),
        ((3, -1), "n_nuisance must be at least 1, got -1.*plain classifier"),
    ],
)
def test_numbers_out_of_range(numbers: tuple[int, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LatentSplit(*numbers)


@pytest.mark.parametrize("value", [2.0, True, "2"])
def test_a_number_of_the_wrong_kind(value: Any) -> None:
    with as_a_user(), pytest.raises(TypeError, match="n_class must be an integer, got"):
        LatentSplit(value, 3)


def test_a_split_is_a_value() -> None:
    assert LatentSplit(2, 3) == LatentSplit(2, 3) != LatentSplit(3, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        LatentSplit(2, 3).n_class = 4  # pyright: ignore[reportAttributeAccessIssue]

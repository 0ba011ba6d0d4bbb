"""Every rule has a message that says what was expected, what came and what to do."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from svae.data import ArrayData, ArraySet, as_data
from svae.data.check import check_images, check_labels, check_splits

X = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 4


def with_value(value: float) -> Tensor:
    x = X.clone()
    x[7, 0, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X * 255, ValueError, r"from 0\.\d+ to 25\d.* expected \[0, 1\]\. Divide .* by 255"),
        (with_value(1.0001), ValueError, r"first in example 7, 1 examples in all.*\[0, 1\]"),
        (with_value(-0.5), ValueError, r"from -0\.5 .* expected \[0, 1\]\. Undo a Normalize"),
        (with_value(float("nan")), ValueError, "NaN or infinite.*example 7.*finite.*Drop"),
        (with_value(float("inf")), ValueError, "NaN or infinite.*example 7"),
        ((X * 255).long(), TypeError, r"torch.int64, expected uint8.*x.to\(torch.uint8\)"),
        (X[:, 0], ValueError, r"\(20, 8, 8\), expected images .* x.unsqueeze\(1\)"),
        (X[..., None], ValueError, r"expected images .*x.flatten\(1\)"),
        (X[:, 0, 0, 0], ValueError, r"\(20,\), expected .*x\[:, None\]"),
        (X.expand(-1, 3, -1, -1).permute(0, 2, 3, 1), ValueError, r"permute\(0, 3, 1, 2\)"),
        (X[:0], ValueError, "is empty.*expected at least one example"),
        (X[:, :, :0], ValueError, "expected no dim of size 0"),
    ],
)
def test_images(x: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_images(x)
    y = Y[: len(x)]
    with pytest.raises(error, match=message):
        as_data((x, y))


def test_good_images_pass() -> None:
    for x in (X, X.double(), X.bfloat16(), X.flatten(1), (X * 255).byte(), X.round()):
        check_images(x)
    check_images(X, shape=(1, 8, 8))


@pytest.mark.parametrize("other", [X.expand(-1, 3, -1, -1), X[..., :7], X.flatten(1)])
def test_parts_of_different_shapes(other: Tensor) -> None:
    good, bad = ArraySet(X, Y), ArraySet(other, Y)
    for parts, name in (((good, bad, good), "validation"), ((good, good, bad), "test")):
        with pytest.raises(ValueError, match=rf"{name} images .*expected \(1, 8, 8\) as in"):
            ArrayData(*parts, class_names=tuple("abcd"))


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (Y.float(), TypeError, r"torch.float32, expected integer labels.*y.long\(\)"),
        (Y > 1, TypeError, "torch.bool, expected integer labels"),
        (Y[:-1], ValueError, "19 labels for 20 examples, expected one each"),
        (Y[:, None], ValueError, r"\(20, 1\), expected one label.*y.squeeze\(1\)"),
        (torch.eye(4)[Y].long(), ValueError, r"\(20, 4\), expected one label.*y.argmax\(1\)"),
        (Y - 2, ValueError, r"label -2 .*example 0.*in 0\.\.3.*np.unique.*-1 is for unlab"),
        (torch.eye(3)[Y % 3], ValueError, r"\(20, 3\), expected one row.*\(20, 4\)"),
        (2 * torch.eye(4)[Y], ValueError, r"20 rows.*example 0.*sum 2\).*softmax"),
        (torch.full((20, 4), math.nan), ValueError, "20 rows that are no distribution"),
        (Y + 1, ValueError, r"label 4 .*example 3.*expected labels in 0\.\.3.*y - 1"),
        (Y * 2, ValueError, r"label 6 .*expected labels in 0\.\.3.*n_classes=7"),
    ],
)
def test_labels(y: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_labels(y, 20, 4)
    with pytest.raises(error, match=message):
        as_data((X, y), n_classes=4)
    with pytest.raises(error, match=message):
        as_data((X.numpy(), y.numpy()), n_classes=4)


def test_good_labels_pass() -> None:
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.int64):
        check_labels(Y.to(dtype), 20, 4)
    check_labels(Y, 20)


def test_a_class_without_training_examples() -> None:
    gap = torch.where(Y == 2, 3, Y)
    with pytest.raises(ValueError, match=r"1 of 4 classes have no training example \(labels 2\)"):
        as_data((X, gap))
    with pytest.raises(ValueError, match=r"2 of 6 classes .*labels 4, 5\).*expected every label"):
        as_data((X, Y), n_classes=6)
    part, lacking = ArraySet(X, Y), ArraySet(X[Y > 0], Y[Y > 0])
    check_splits(part, lacking, lacking, 4)  # needed for training only
    with pytest.raises(ValueError, match=r"1 of 4 classes have no training example \(labels 0\)"):
        check_splits(lacking, part, part, 4)


def test_unlabelled_and_empty_parts() -> None:
    part = ArraySet(X, Y)
    with pytest.raises(ValueError, match="test set has no labels"):
        ArrayData(part, part, ArraySet(X), class_names=tuple("abcd"))
    with pytest.raises(ValueError, match="validation images is empty"):
        ArrayData(part, ArraySet(X[:0], Y[:0]), part, class_names=tuple("abcd"))
    with pytest.raises(ValueError, match="batch_size is 0"):
        ArrayData(part, part, part, class_names=tuple("abcd"), batch_size=0)


def test_numpy_labels_that_are_no_numbers() -> None:
    with pytest.raises(TypeError, match=r"dtype <U1, expected numbers.*np.unique"):
        as_data((X, np.array(list("abcd") * 5)))

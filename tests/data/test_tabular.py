import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import svae
from svae.data import TabularData
from svae.likelihoods import Columns

N = 60
FRAME = pd.DataFrame(
    {
        "size": np.linspace(1, 60, N),
        "weight": np.tile([3, 1, 2], N // 3),
        "colour": ["red", "green", "blue"] * (N // 3),
        "round": [True, False] * (N // 2),
    }
)
Y = np.array(["big", "small"] * (N // 2))


def test_a_frame_becomes_standardised_numbers_and_groups() -> None:
    data = TabularData(FRAME, Y)
    assert data.encoding.numeric == ("size", "weight")
    categories = {"colour": ["blue", "green", "red"], "round": [False, True]}
    assert data.encoding.categories == categories
    assert (data.x_shape, data.n_classes, data.class_names) == ((7,), 2, ("big", "small"))
    assert len(data.train) + len(data.validation) + len(data.test) == N
    assert len(data.test) == 12
    numbers = data.train.x[:, :2]
    torch.testing.assert_close(numbers.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(numbers.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    assert (data.train.x[:, 2:5].sum(1) == 1).all()


def test_rows_come_back_in_their_own_units() -> None:
    data = TabularData(FRAME, Y)
    table = data.encoding.decode(data.encoding.encode(FRAME))
    np.testing.assert_allclose(table["size"], FRAME["size"], rtol=1e-5)
    assert table["colour"].tolist() == FRAME["colour"].tolist()
    assert table["round"].tolist() == FRAME["round"].tolist()


def test_arrays_mappings_and_frames_are_the_same_table() -> None:
    array = np.stack([FRAME["size"], FRAME["weight"]], 1)
    by_array = TabularData(array, Y, categorical=[1])
    by_name = TabularData({"0": array[:, 0], "1": array[:, 1]}, Y, categorical=["1"])
    by_frame = TabularData(pd.DataFrame(array), Y, categorical=["1"])
    assert by_array.encoding.sizes == (3,)
    for other in (by_name, by_frame):
        torch.testing.assert_close(by_array.train.x, other.train.x)


def test_missing_labels_are_unlabelled_rows() -> None:
    y = [None if i % 3 else label for i, label in enumerate(Y)]
    data = TabularData(FRAME, y)
    known = sum(int((part.marked >= 0).sum()) for part in (data.train, data.validation, data.test))
    assert known == N // 3
    numbered = TabularData(FRAME, [-1 if i % 3 else i % 2 for i in range(N)])
    assert numbered.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("table", "y", "settings", "error", "message"),
    [
        (FRAME.assign(size=math.nan), Y, {}, ValueError, "'size' has 60 missing.*SimpleImputer"),
        (FRAME.assign(colour=None), Y, {}, ValueError, "'colour' misses the value of row 0"),
        (FRAME.assign(size=1.0), Y, {}, ValueError, r"\['size'\] have one value only"),
        (FRAME, Y[:-1], {}, ValueError, "59 labels for columns of lengths"),
        (FRAME, Y, {"categorical": ["age"]}, ValueError, r"no column \['age'\]; the table has"),
        (np.array([["x"], ["y"]] * 30), Y, {}, TypeError, "holds no numbers.*categor"),
        (np.zeros(3), Y, {}, ValueError, r"\(rows, columns\), got \(3,\)"),
        ("table.csv", Y, {}, TypeError, "the table is a str; expected a pandas frame"),
    ],
)
def test_what_a_table_must_not_hold(
    table: Any, y: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TabularData(table, y, **settings)


def test_an_unknown_category_is_named() -> None:
    data = TabularData(FRAME, Y)
    with pytest.raises(ValueError, match=r"'colour' has the categories \['pink'\]"):
        data.encoding.encode({**FRAME.to_dict("list"), "colour": ["pink"] * N})


# A few steps on noise leave it at that.
@pytest.mark.filterwarnings("ignore:the .* block has collapsed")
def test_a_table_trains_and_is_resampled() -> None:
    data = TabularData(FRAME, Y, batch_size=16)
    encoding = data.encoding
    likelihood = Columns(len(encoding.numeric), encoding.sizes)
    vae = svae.SVAE.for_vectors(7, 2, svae.LatentSplit(2, 2), likelihood=likelihood, hidden=(16,))
    objective = svae.SupervisedELBO(beta_class=0.1)
    quiet: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}
    svae.fit(vae, data, objective=objective, max_epochs=3, **quiet)
    rows = svae.resample_nuisance(vae, data.test.x, n=3)
    assert rows.shape == (3, 12, 7)
    torch.testing.assert_close(rows[..., 2:5].sum(-1), torch.ones(3, 12))

"""Rows of a table, from arrays or a pandas frame: numeric columns and categories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svae.data.arrays import ArraySet, Mixture, stratified_order
from svae.data.module import ArrayData
from svae.labels import MISSING

__all__ = ["Encoding", "TabularData"]


@dataclass(frozen=True)
class Encoding:
    """What the entries of an encoded row mean: numbers first, then one group per category.

    Attributes:
        numeric: Names of the numeric columns.
        loc: Their means in the training set.
        scale: Their standard deviations there.
        categories: Names of the categorical columns, each with its values in order.
    """

    numeric: tuple[str, ...]
    loc: np.ndarray
    scale: np.ndarray
    categories: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of categories of every categorical column."""
        return tuple(len(values) for values in self.categories.values())

    def encode(self, table: Any) -> Tensor:
        """Rows of a frame or a mapping as the model sees them: standardised, one-hot.

        Raises:
            ValueError: If a value is missing, no number, or a category that is not known.
        """
        parts = []
        for name, loc, scale in zip(self.numeric, self.loc, self.scale, strict=True):
            parts.append(((_numbers(name, table[name]) - loc) / scale)[:, None])
        for name, values in self.categories.items():
            column = np.asarray(table[name], dtype=object)
            unknown = sorted({str(v) for v in column if v not in values})
            if unknown:
                raise ValueError(
                    f"the column {name!r} has the categories {unknown[:5]}, which the training "
                    f"set has not; known are {values[:10]}. Drop these rows or map them."
                )
            parts.append(np.stack([column == value for value in values], 1))
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    def decode(self, x: Tensor) -> dict[str, np.ndarray]:
        """Rows in the table's own units; of each group the most probable category."""
        rows = x.detach().cpu().numpy()
        table: dict[str, np.ndarray] = {}
        for i, name in enumerate(self.numeric):
            table[name] = rows[:, i] * self.scale[i] + self.loc[i]
        start = len(self.numeric)
        for name, values in self.categories.items():
            group = rows[:, start : start + len(values)]
            table[name] = np.asarray(values, dtype=object)[group.argmax(1)]
            start += len(values)
        return table


class TabularData(ArrayData):
    """A table with a label per row, as a data module.

    Numeric columns are standardised by the training rows, categories become groups of zeros and a
    one. Rows are split 70 / 10 / 20 into training, validation and test, stratified by class and
    fixed by ``seed``. :attr:`encoding` says what an entry means and turns rows back into a table.

    Args:
        table: A pandas frame, a mapping from names to columns, or an array ``(rows, columns)``.
        y: Labels, one per row: numbers or names, whose sorted order numbers the classes; -1 or
            None where there is none.
        categorical: Names of the categorical columns (indices for an array). Columns of a frame
            that hold text, booleans or pandas categories are categorical by themselves.
        name: Name of the set, as metrics and reports give it.
        class_names: Names of the classes; by default the labels.
        batch_size: Examples per batch and process.
        seed: Split and orders of the training batches.
        mixture: What training batches are made of, such as equally many of each class.

    Raises:
        TypeError: If the table is of another kind, or a column holds no numbers.
        ValueError: If a value is missing, numbers of rows differ, or a column is constant.

    Example:
        >>> table = {"size": [1.0, 2.0, 4.0] * 20, "colour": ["red", "blue", "red"] * 20}
        >>> data = svae.data.TabularData(table, ["small", "small", "big"] * 20)
        >>> data.x_shape, data.encoding.sizes, data.class_names
        ((3,), (2,), ('big', 'small'))
    """

    def __init__(
        self,
        table: Any,
        y: Any,
        categorical: Sequence[str | int] = (),
        name: str = "table",
        class_names: Sequence[str] | None = None,
        batch_size: int = 128,
        seed: int = 0,
        mixture: Mixture | None = None,
    ) -> None:
        named, found = _columns_of(table)
        unknown = {str(c) for c in categorical} - named.keys()
        if unknown:
            raise ValueError(f"no column {sorted(unknown)}; the table has {list(named)}")
        chosen = found | {str(c) for c in categorical}
        lengths = {column: len(values) for column, values in named.items()}
        labels, classes = _labels(y)
        if {*lengths.values(), len(labels)} != {len(labels)}:
            raise ValueError(
                f"{len(labels)} labels for columns of lengths {sorted(set(lengths.values()))}; "
                "expected one row per label"
            )
        order = stratified_order(labels, seed)
        n_test, n_validation = round(0.2 * len(order)), max(1, round(0.1 * len(order)))
        if len(order) - n_test - n_validation < 1 or not n_test:
            raise ValueError(f"{len(order)} rows are too few to split, expected at least 5")
        test, validation, train = order.split(
            [n_test, n_validation, len(order) - n_test - n_validation]
        )
        self.encoding = _fitted(named, chosen, train.numpy())
        whole = ArraySet(self.encoding.encode(named), labels)
        super().__init__(
            whole.subset(train),
            whole.subset(validation),
            whole.subset(test),
            class_names=tuple(map(str, classes if class_names is None else class_names)),
            name=name,
            batch_size=min(batch_size, len(train)),
            seed=seed,
            mixture=mixture,
            bounded=False,
        )


def _columns_of(table: Any) -> tuple[dict[str, Any], set[str]]:
    """Columns by name, and which of them are categorical by their type."""
    import pandas as pd  # slow to import, and only tables need it

    if isinstance(table, Tensor):
        table = table.numpy()
    if isinstance(table, np.ndarray):
        if table.ndim != 2:
            raise ValueError(f"a table has shape (rows, columns), got {table.shape}")
        return {str(i): table[:, i] for i in range(table.shape[1])}, set()
    if isinstance(table, pd.DataFrame):
        named = {str(name): table[name].to_numpy() for name in table.columns}
        kinds = {str(name): str(table[name].dtype) for name in table.columns}
        plain = ("int", "uint", "float", "Int", "UInt", "Float")
        return named, {name for name, kind in kinds.items() if not kind.startswith(plain)}
    if isinstance(table, Mapping):
        named = {str(name): np.asarray(values) for name, values in table.items()}
        return named, {name for name, values in named.items() if values.dtype.kind in "bOUS"}
    raise TypeError(
        f"the table is a {type(table).__name__}; expected a pandas frame, a mapping from names to "
        "columns, or an array (rows, columns)"
    )


def _labels(y: Any) -> tuple[Tensor, list[Any]]:
    """Numbered classes, -1 for none, and the classes in order."""
    given = _with_none(y)
    known = [v for v in given if v is not None and v != MISSING]
    classes = sorted(set(known), key=lambda v: (str(type(v)), v))
    numbers = {value: i for i, value in enumerate(classes)}
    return torch.tensor([numbers.get(v, MISSING) for v in given]), classes


def _with_none(values: Any) -> list[Any]:
    """Entries of a column, None for each that is missing, NaN among them."""
    return [None if v is None or v != v else v for v in np.asarray(values, dtype=object).ravel()]


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the column {name!r} holds no numbers ({error}). Name it in categorical=."
        ) from error
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(
            f"the column {name!r} has {len(bad)} missing or infinite values (first in row "
            f"{bad[0]}). Fill them in, as with sklearn.impute.SimpleImputer, or drop the rows."
        )
    return numbers


def _fitted(named: dict[str, Any], categorical: set[str], train: np.ndarray) -> Encoding:
    numeric = tuple(name for name in named if name not in categorical)
    numbers = [_numbers(name, named[name])[train] for name in numeric]
    scale = np.array([column.std() for column in numbers])
    constant = [name for name, s in zip(numeric, scale, strict=True) if not s > 0]
    categories = {}
    for name in (name for name in named if name in categorical):
        values = _with_none(named[name])
        if None in values:
            raise ValueError(
                f"the column {name!r} misses the value of row {values.index(None)}. Fill it in, "
                "for example with a category of its own, or drop the row."
            )
        categories[name] = sorted({values[i] for i in train}, key=str)
        if len(categories[name]) < 2:
            constant.append(name)
    if constant:
        raise ValueError(
            f"the columns {constant} have one value only in the training rows, so nothing can be "
            "learned from them: drop them"
        )
    loc = np.array([column.mean() for column in numbers])
    return Encoding(numeric, loc, scale, categories)

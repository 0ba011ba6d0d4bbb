"""Examples of one domain, each with what belongs to it in another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svae.data.arrays import ArraySet
from svae.data.module import ArrayData

__all__ = ["SPLITS", "PairedData", "check_pairs", "paired", "source_inputs"]

SPLITS = ("train", "validation", "test")


class PairedData(ArrayData):
    """A set, and for each of its examples an input of the source that it is a translation of.

    Args:
        data: Examples of the target.
        source: Inputs of the source by split, as many as there are examples and in their order:
            tensors or arrays, or lists, such as captions. Or a function that gives those of one
            of its sets.

    Attributes:
        source_inputs: By split, ``train``, ``validation`` and ``test``.

    Raises:
        ValueError: If a set has more or fewer inputs than examples.

    Example:
        >>> digits = svae.data.Digits()
        >>> data = PairedData(digits, lambda part: [f"a {label}" for label in part.y.tolist()])
        >>> data.source_inputs["test"][:2]
        ['a 8', 'a 7']
    """

    def __init__(
        self, data: ArrayData, source: Mapping[str, Any] | Callable[[ArraySet], Any]
    ) -> None:
        sets = {name: getattr(data, name) for name in SPLITS}
        inputs = {
            name: _rows(source[name] if isinstance(source, Mapping) else source(part))
            for name, part in sets.items()
        }
        for name, part in sets.items():
            check_pairs(inputs[name], len(part), f" of the {name} set")
        super().__init__(
            *sets.values(),
            class_names=data.class_names,
            name=str(data.name),
            batch_size=data.batch_size,
            seed=data.seed,
            bounded=data.bounded,
        )
        self.factor_names = data.factor_names
        self.source_inputs: dict[str, Any] = inputs


def paired(
    source: Any,
    target: Tensor | np.ndarray,
    y: Tensor | np.ndarray | Sequence[int] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    bounded: bool = True,
) -> PairedData:
    """Pairs, split 80 / 10 / 10 into training, validation and test.

    Args:
        source: Inputs of the source: a tensor or an array, a list or a column, such as captions.
        target: Inputs of the target that they are translated to, row by row.
        y: Labels of the pairs, where there are any.
        batch_size: Examples per batch and process.
        seed: Split and orders.
        bounded: Whether inputs of the target must lie in [0, 1], as pictures do.

    Raises:
        ValueError: If there are not as many of both and of the labels, or fewer than ten.

    Example:
        >>> data = paired(["zero", "one"] * 10, torch.rand(20, 1, 8, 8))
        >>> len(data.train), len(data.source_inputs["train"])
        (16, 16)
    """
    target, source = torch.as_tensor(target), _rows(source)
    n = len(target)
    check_pairs(source, n)
    if n < 10:
        raise ValueError(f"{n} pairs are too few to be split: expected 10 or more")
    y = torch.zeros(n, dtype=torch.int64) if y is None else torch.as_tensor(y)
    if len(y) != n:
        raise ValueError(
            f"{len(y)} labels came with {n} pairs: y has one for each, in their order"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    rows = dict(zip(SPLITS, order.split([n - 2 * (n // 10), n // 10, n // 10]), strict=True))
    sets = {name: ArraySet(target[part], y[part]) for name, part in rows.items()}
    names = tuple(map(str, range(int(y.max()) + 1)))
    data = ArrayData(
        *sets.values(), class_names=names, batch_size=batch_size, seed=seed, bounded=bounded
    )

    def chosen(part: Tensor) -> Any:
        if isinstance(source, Tensor):
            return source[part]
        return [source[i] for i in part.tolist()]

    return PairedData(data, {name: chosen(part) for name, part in rows.items()})


def _rows(source: Any) -> Tensor | list[Any]:
    """Inputs by place, whatever index or type of array they came with."""
    if isinstance(source, Tensor):
        return source
    # A column of a table is indexed by labels, which a shuffle or a filter leaves out of order.
    array = source.to_numpy() if hasattr(source, "to_numpy") else source
    if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(array))
    rows = list(array)
    # Labels, and attributes in lists; texts and what else there may be stay as they are.
    numbers = all(isinstance(_innermost(row), int | float | np.number) for row in rows)
    return torch.as_tensor(np.asarray(rows)) if rows and numbers else rows


def _innermost(row: Any) -> Any:
    while isinstance(row, list | tuple) and row:
        row = row[0]
    return row


def source_inputs(data: ArrayData, split: str) -> Any | None:
    """The source's inputs of a split; None where the data are no pairs.

    Raises:
        ValueError: If the set was cut or replaced since the pairs were made.
    """
    given = getattr(data, "source_inputs", {}).get(split)
    if given is not None:
        advice = " Cut the sets first, and pair them then."
        check_pairs(given, len(getattr(data, split)), f" of the {split} set", advice)
    return given


def check_pairs(source: Any, n_target: int, where: str = "", advice: str = "") -> None:
    """Refuses inputs of the source that are more or fewer than those of the target.

    Raises:
        ValueError: If they are.
    """
    if len(source) != n_target:
        raise ValueError(
            f"{len(source)} inputs of the source came with {n_target} of the target{where}: pairs "
            "need as many of both, in the same order. Were the two cut or shuffled separately?"
            f"{advice}"
        )

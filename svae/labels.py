r"""What is known of the class of each example: a label, a distribution, or nothing.

Labels come in one of two forms, which everything that trains understands:

- integers ``(batch,)`` in 0..K-1, with -1 where the class is not known;
- probabilities ``(batch, K)``, a distribution for each example, such as a frozen model's own
  predictions; a row of -1 where nothing is known.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

__all__ = [
    "MISSING",
    "Labels",
    "mean_of_known",
    "positive_weights",
    "read_labels",
    "row_stochastic",
]

MISSING = -1


class Labels(NamedTuple):
    """Labels of a batch in a form without branches, as a compiled step needs it.

    Attributes:
        hard: The most probable class, ``(batch,)``; 0 where it is not known.
        known: Whether anything is known.
        soft: Probabilities, ``(batch, K)``, or None where labels are integers.
    """

    hard: Int[Tensor, " batch"]
    known: Bool[Tensor, " batch"]
    soft: Float[Tensor, "batch classes"] | None = None

    @property
    def marked(self) -> Int[Tensor, " batch"]:
        """The most probable class, -1 where it is not known."""
        return torch.where(self.known, self.hard, MISSING)


def read_labels(y: Shaped[Tensor, "batch *classes"]) -> Labels:
    """Tells the two forms of labels apart.

    Raises:
        ValueError: If ``y`` is neither ``(batch,)`` integers nor ``(batch, K)`` probabilities.

    Example:
        >>> read_labels(torch.tensor([2, -1])).known
        tensor([ True, False])
        >>> read_labels(torch.tensor([[0.2, 0.8], [-1.0, -1.0]])).marked
        tensor([ 1, -1])
    """
    if y.dim() == 1 and not y.is_floating_point():
        return Labels(y.clamp(min=0), y >= 0)
    if y.dim() == 2 and y.is_floating_point():
        known = y[:, 0] >= 0
        soft = y.clamp(min=0)
        return Labels(soft.argmax(-1), known, soft)
    raise ValueError(
        f"labels are {y.dtype} of shape {tuple(y.shape)}; expected integers (batch,) with -1 "
        "for unlabelled examples, or probabilities (batch, classes)."
    )


def mean_of_known(
    values: Float[Tensor, " batch"], weights: Shaped[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Mean weighted by ``weights``, such as whether the label is known; 0 where all are 0."""
    weights = weights.to(values.dtype)
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


def positive_weights(weights: Sequence[float] | Tensor | None) -> Tensor | None:
    """One factor for each class, or None.

    Raises:
        ValueError: If they are no positive numbers.
    """
    if weights is None:
        return None
    given = torch.as_tensor(weights, dtype=torch.get_default_dtype())
    if given.dim() != 1 or not bool((given > 0).all()):
        raise ValueError(
            f"class_weights are one positive number for each class, got {given.tolist()}. "
            "The usual is 1 / (number of examples of the class)."
        )
    return given


def row_stochastic(matrix: Sequence[Sequence[float]] | Tensor | None) -> Tensor | None:
    """A confusion matrix, row the true class and column the label, or None.

    Raises:
        ValueError: If a row is no distribution.
    """
    if matrix is None:
        return None
    given = torch.as_tensor(matrix, dtype=torch.get_default_dtype())
    square = given.dim() == 2 and given.shape[0] == given.shape[1]
    if not square or not bool((given >= 0).all()):
        raise ValueError(
            f"confusion is a (classes, classes) matrix of numbers of at least 0, got shape "
            f"{tuple(given.shape)}"
        )
    sums = given.sum(1)
    if not bool(((sums - 1).abs() < 1e-4).all()):
        raise ValueError(
            "every row of confusion is the distribution of the label of one true class and sums "
            f"to 1, got {[round(float(s), 4) for s in sums]}. Transpose it if rows are labels."
        )
    return given / sums.unsqueeze(1)

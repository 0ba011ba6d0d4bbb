r"""What is known of the class of each example: a label, a distribution, or nothing.

Labels come in one of two forms, which everything that trains understands:

- integers ``(batch,)`` in 0..K-1, with -1 where the class is not known;
- probabilities ``(batch, K)``, a distribution for each example, such as a frozen model's own
  predictions; a row of -1 where nothing is known.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

__all__ = ["MISSING", "Labels", "mean_of_known", "read_labels"]

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

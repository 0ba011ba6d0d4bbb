"""What every loader yields, and the one conversion from stored pixels to floats."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class Batch(NamedTuple):
    """Examples of one step.

    Attributes:
        x: Data, ``(batch, *shape)``: floats in [0, 1] once the batch has reached the model.
        y: Labels in 0..K-1, ``(batch,)`` int64, -1 for unlabelled examples; or probabilities,
            ``(batch, K)``; or None where nobody knows any.
        factors: True causes, ``(batch, n_factors)``, or None.

    Example:
        >>> batch = Batch(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]))
        >>> batch.x.shape, batch.factors is None
        (torch.Size([4, 1, 8, 8]), True)
    """

    x: Tensor
    y: Tensor | None = None
    factors: Tensor | None = None


def as_floats(x: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixels in [0, 1]: bytes are divided by 255 on the device they are on, floats stay.

    Args:
        x: uint8 in 0..255, or floating point in [0, 1].

    Raises:
        TypeError: If ``x`` is of another dtype.

    Example:
        >>> as_floats(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point():
        raise TypeError(
            f"data are {x.dtype}, expected uint8 in 0..255 or floats in [0, 1]. "
            "Convert 0..255 with x.to(torch.uint8)."
        )
    return x

"""Codes of foreign autoencoders, in units that noise and flows can be measured in."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CodeUnits", "moments"]

_ROWS = 10_000  # read at a time


class CodeUnits(nn.Module):
    """Every dim of a code with zero mean and unit variance, and back.

    Args:
        n_code: Number of code dims.

    Example:
        >>> units = CodeUnits(2)
        >>> units.take(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
        >>> units(torch.tensor([[1.0, 20.0]]))
        tensor([[0., 0.]])
    """

    def __init__(self, n_code: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(n_code))
        self.register_buffer("scale", torch.ones(n_code))

    @torch.no_grad()
    def take(self, code: Float[Tensor, "n D"]) -> None:
        """Takes mean and scale of every dim from training codes.

        Raises:
            ValueError: If all dims are constant, or a value is not finite.
        """
        mean, spread = moments(code)
        largest = spread.max()
        if not bool(mean.isfinite().all() and spread.isfinite().all()):
            raise ValueError("the target gives codes that are not finite: look at its inputs")
        if not largest > 0:
            raise ValueError(
                "all codes of the target are the same: it has not been fitted, or it codes "
                "nothing of these inputs"
            )
        self.mean.copy_(mean)
        # A dim that hardly ever moves would be amplified without bound.
        self.scale.copy_(torch.where(spread > 1e-6 * largest, spread, largest))

    def forward(self, code: Float[Tensor, "batch D"]) -> Float[Tensor, "batch D"]:
        """Codes as the target gives them, standardised."""
        return (code - self.mean) / self.scale

    def inverse(self, code: Float[Tensor, "batch D"]) -> Float[Tensor, "batch D"]:
        """Standardised codes as the target takes them."""
        return self.mean + self.scale * code


def moments(
    rows: Float[Tensor, "n *shape"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Mean and standard deviation of every entry over all rows, which may lie on disk.

    By parts, whose squares are of deviations from their own means (Chan et al., 1979). All rows:
    in sorted data the first ones say nothing of the others.
    """
    n, mean, squares = 0, torch.zeros(rows.shape[1:]), torch.zeros(rows.shape[1:])
    for part in rows.split(_ROWS):
        variance, own = torch.var_mean(part.float(), 0, correction=0)
        m = len(part)
        apart = own - mean
        mean = mean + apart * m / (n + m)
        squares = squares + variance * m + apart.square() * n * m / (n + m)
        n += m
    return mean, (squares / max(n - 1, 1)).sqrt()

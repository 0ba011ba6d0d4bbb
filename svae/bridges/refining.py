"""A learned projection of codes onto the fibre of a representation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.nets import MapEncoder, MLPEncoder

__all__ = ["FibreRefiner", "summary"]


class FibreRefiner(nn.Module):
    r"""How a code should move so that the layer sees in it what it should.

    .. math:: z \leftarrow z + g\big(z,\; \Phi(D(z)) - r,\; r\big)

    A network in place of the gradient steps that would minimise
    :math:`\|\Phi(D(z)) - r\|` for every code anew. It moves nothing before it is fitted.

    Args:
        shape: Shape of one representation.
        n_code: Number of code dims.
        context: Features that difference and representation are summed up in.
        n_steps: How often a code is moved; 0 leaves it where it is.
        hidden: Width of the two hidden layers.

    Raises:
        ValueError: If ``n_steps`` is negative.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_code: int,
        context: int = 96,
        n_steps: int = 3,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        if n_steps < 0:
            raise ValueError(f"n_steps, the number of moves, must be at least 0, got {n_steps}")
        self.n_steps = n_steps
        self.look = summary(shape, context)
        self.hidden = nn.Sequential(
            nn.Linear(n_code + 2 * context, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
        )
        self.last = nn.Linear(hidden, n_code)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        code: Float[Tensor, "batch D"],
        difference: Float[Tensor, "batch *shape"],
        wanted: Float[Tensor, "batch C"],
    ) -> Float[Tensor, "batch D"]:
        """The code after one move.

        Args:
            code: Where it is.
            difference: What the layer sees of it less what it should see, in standard deviations.
            wanted: What the layer should see, summed up.
        """
        return code + self.last(self.hidden(torch.cat([code, self.look(difference), wanted], 1)))


def summary(shape: Sequence[int], n_features: int) -> nn.Module:
    """An encoder of representations, maps or vectors, to ``n_features``."""
    if len(shape) == 3:
        return MapEncoder(tuple(shape), n_features, width=32)
    return MLPEncoder(tuple(shape), n_features, hidden=(256,))

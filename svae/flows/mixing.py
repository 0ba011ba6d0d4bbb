"""Maps that mix the features, so that the next couplings split them otherwise."""

import torch
from jaxtyping import Float
from torch import Tensor

from svae.flows.bijection import Bijection, Pair
from svae.saving import Described

__all__ = ["Permutation"]


class Permutation(Described, Bijection):
    """A fixed random order of the features; log-determinant 0.

    Args:
        features: Number of features.
        seed: Seed of the order.
    """

    def __init__(self, features: int, seed: int = 0) -> None:
        super().__init__()
        order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
        self.order: Tensor
        self.undo: Tensor
        self.register_buffer("order", order)
        self.register_buffer("undo", order.argsort())

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return x[..., self.order], x.new_zeros(()).expand(x.shape[:-1])

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return y[..., self.undo], y.new_zeros(()).expand(y.shape[:-1])

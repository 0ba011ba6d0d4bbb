"""What every invertible map offers: both directions, each with its log-determinant."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Bijection", "Pair"]

Pair = tuple[Tensor, Tensor]


class Bijection(nn.Module, ABC):
    """An invertible map of vectors, possibly given a context."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        """Maps value to noise; gives the noise and the map's log-determinant ``(*batch,)``."""

    @abstractmethod
    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        """Maps noise to value; gives the value and *this* map's log-determinant."""

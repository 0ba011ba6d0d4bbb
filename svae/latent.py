"""Which dims of a latent hold the class and which the nuisance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Latent", "LatentSplit"]


class Latent(NamedTuple):
    """The two parts of a latent.

    Attributes:
        z_class: What the classification reads, shape ``(*batch, n_class)``, or a feature map.
        z_nuisance: What it must not need, shape ``(*batch, n_nuisance)``.

    Example:
        >>> latent = Latent(torch.zeros(5, 2), torch.ones(5, 3))
        >>> latent.map(lambda part: part[:2]).z_nuisance.shape
        torch.Size([2, 3])
    """

    z_class: Tensor
    z_nuisance: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Latent":
        """Applies ``function`` to both parts, for moving, indexing or detaching."""
        return Latent(function(self.z_class), function(self.z_nuisance))


@dataclass(frozen=True)
class LatentSplit:
    """Numbers of class and nuisance dims, class first.

    Args:
        n_class: Number of class dims, at least 1.
        n_nuisance: Number of nuisance dims, at least 1.

    Raises:
        ValueError: If either number is less than 1.
        TypeError: If either is no integer.

    Example:
        >>> split = LatentSplit(n_class=2, n_nuisance=3)
        >>> latent = split.split(torch.arange(5.0))
        >>> latent.z_nuisance
        tensor([2., 3., 4.])
        >>> split.join(latent)
        tensor([0., 1., 2., 3., 4.])
    """

    n_class: int
    n_nuisance: int

    def __post_init__(self) -> None:
        for name, value in (("n_class", self.n_class), ("n_nuisance", self.n_nuisance)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(
                    f"{name} must be an integer, got {value!r} of type {type(value).__name__}"
                )
            if value < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {value}. A model without "
                    f"{'class' if name == 'n_class' else 'nuisance'} dims has nothing to split: "
                    "use a plain classifier or a plain VAE instead."
                )

    @property
    def n_features(self) -> int:
        """Number of all dims."""
        return self.n_class + self.n_nuisance

    def split(self, z: Float[Tensor, "*batch features"]) -> Latent:
        """Cuts a joined latent into its two parts.

        Raises:
            ValueError: If the last dim has not ``n_features`` entries.
        """
        self._check(z.shape[-1], "latent")
        return Latent(z[..., : self.n_class], z[..., self.n_class :])

    def join(self, latent: Latent) -> Float[Tensor, "*batch features"]:
        """Joins two parts, the inverse of :meth:`split`.

        Raises:
            ValueError: If the parts have other widths than the split.
        """
        widths = latent.z_class.shape[-1], latent.z_nuisance.shape[-1]
        if widths != (self.n_class, self.n_nuisance):
            raise ValueError(
                f"latent parts have {widths[0]} class and {widths[1]} nuisance features, the "
                f"split needs {self.n_class} class + {self.n_nuisance} nuisance. "
                "Were the parts swapped, or do they come from another model?"
            )
        return torch.cat([latent.z_class, latent.z_nuisance], dim=-1)

    def _check(self, n: int, what: str) -> None:
        if n != self.n_features:
            hint = (
                " Did the encoder return loc and scale in one tensor? Use .chunk(2, -1)."
                if n == 2 * self.n_features
                else " Build the encoder or the split with the other's width."
            )
            raise ValueError(
                f"{what} has {n} features, the split needs {self.n_features} "
                f"({self.n_class} class + {self.n_nuisance} nuisance).{hint}"
            )

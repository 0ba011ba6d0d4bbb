"""The protocol that everything explains through, and what follows from it alone.

A factorization splits what a model sees into ``z_class``, which the model reads, and
``z_nuisance``, which it does not. A supervised VAE, an invertible bridge to a frozen network or a
class of your own with the four methods of :class:`Factorization` can be resampled, swapped,
measured and drawn by the same functions.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from svae.latent import Latent

Encoded = TypeVar("Encoded", Tensor, Latent)

__all__ = [
    "Factorization",
    "in_batches",
    "read",
    "reconstruct",
    "resample_nuisance",
    "swap_nuisance",
]


@runtime_checkable
class Factorization(Protocol):
    """A model's input taken apart into what the model reads and what it ignores."""

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        """Posterior means of both parts for a batch, or one posterior sample."""
        ...

    def decode(self, latent: Latent) -> Tensor:
        """Mean of p(x given latent), in the range of the data; needs nothing but the latent."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """Logits of the model being explained, shape ``(batch, n_classes)``."""
        ...

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Prior draws for the class parts of ``latent``, shape ``(n, batch, n_nuisance)``."""
        ...


def read(factorization: Factorization, latent: Latent) -> Float[Tensor, "batch classes"]:
    """Logits for a latent: the factorization's own ``read``, else through the decoded input.

    A concept bridge answers exactly, from its representation; where there is no ``read`` the
    answer is ``predict(decode(latent))``.
    """
    own: Callable[[Latent], Tensor] | None = getattr(factorization, "read", None)
    return own(latent) if own is not None else factorization.predict(factorization.decode(latent))


def reconstruct(factorization: Factorization, x: Tensor) -> Tensor:
    """``decode(encode(x))``, the reconstruction from posterior means."""
    return factorization.decode(factorization.encode(x))


@torch.no_grad()
def resample_nuisance(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    n: int = 8,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n batch *event"]:
    """Decodes each input ``n`` times with its own class part and fresh nuisance.

    What changes among the ``n`` versions is what the model ignores; what stays is what it reads.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        n: Draws for each input, at least 1.
        generator: Source of the noise, for repeatable draws.

    Raises:
        ValueError: If ``n`` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n, the number of resamples, must be at least 1, got {n}")
    latent = factorization.encode(x)
    nuisance = factorization.sample_nuisance(latent, n, generator)
    flat = Latent(
        latent.z_class.expand(n, *latent.z_class.shape).flatten(0, 1), nuisance.flatten(0, 1)
    )
    return factorization.decode(flat).unflatten(0, (n, len(x)))


@torch.no_grad()
def swap_nuisance(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    other: Float[Tensor, "batch *event"],
) -> Float[Tensor, "batch *event"]:
    """Decodes the class of ``x`` with the nuisance of ``other``, row by row.

    Raises:
        ValueError: If the two batches have different shapes.
    """
    if x.shape != other.shape:
        raise ValueError(
            f"x and other must have the same shape, got {tuple(x.shape)} and "
            f"{tuple(other.shape)}. Use other.expand_as(x) to give one nuisance to all."
        )
    return factorization.decode(
        Latent(factorization.encode(x).z_class, factorization.encode(other).z_nuisance)
    )


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Encoded], x: Tensor, batch_size: int = 500) -> Encoded:
    """Applies ``function`` to chunks of ``x`` without gradients and joins what comes back."""
    parts = [function(chunk) for chunk in x.split(batch_size)]
    if isinstance(parts[0], Latent):
        return Latent(*(torch.cat(part) for part in zip(*parts, strict=True)))
    return torch.cat(parts)  # pyright: ignore[reportArgumentType, reportCallIssue]

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
    "check_protocol",
    "in_batches",
    "part",
    "parts",
    "read",
    "reconstruct",
    "resample_nuisance",
    "sample_part",
    "step_part",
    "swap_nuisance",
    "with_part",
]

CLASS, NUISANCE = "class", "nuisance"  # the parts of a factorization that names no others


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


def parts(factorization: Factorization) -> tuple[str, ...]:
    """Names of the parts of a latent: a concept bridge's own, else ``class`` and ``nuisance``."""
    return tuple(getattr(factorization, "parts", (CLASS, NUISANCE)))


def part(factorization: Factorization, latent: Latent, name: str) -> Float[Tensor, "batch ..."]:
    """One part of a latent.

    Raises:
        ValueError: If there is no such part.
    """
    if (own := getattr(factorization, "part", None)) is not None:
        return own(latent, name)
    _check_part(factorization, name)
    return latent.z_class if name == CLASS else latent.z_nuisance


def with_part(
    factorization: Factorization, latent: Latent, name: str, value: Float[Tensor, "batch ..."]
) -> Latent:
    """The latent with one part replaced.

    Raises:
        ValueError: If there is no such part.
    """
    if (own := getattr(factorization, "with_part", None)) is not None:
        return own(latent, name, value)
    _check_part(factorization, name)
    return Latent(value, latent.z_nuisance) if name == CLASS else Latent(latent.z_class, value)


def sample_part(
    factorization: Factorization,
    latent: Latent,
    name: str,
    n: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n batch ..."]:
    """Draws of one part, whatever the other parts.

    The protocol names no density of the class part: draws of it are those of other rows of
    ``latent``, unless the factorization has a ``sample_part`` of its own.

    Raises:
        ValueError: If there is no such part or ``n`` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
    if (own := getattr(factorization, "sample_part", None)) is not None:
        return own(latent, name, n, generator)
    _check_part(factorization, name)
    if name == NUISANCE:
        return factorization.sample_nuisance(latent, n, generator)
    rows = torch.randint(len(latent.z_class), (n, len(latent.z_class)), generator=generator)
    return latent.z_class[rows.to(latent.z_class.device)]


def step_part(
    factorization: Factorization,
    latent: Latent,
    name: str,
    keep: float = 0.9,
    generator: torch.Generator | None = None,
) -> Latent:
    r"""One step of a random walk within one part that leaves its density as it is.

    Ornstein-Uhlenbeck, :math:`z' = r z + \sqrt{1 - r^2}\, \epsilon`, which is stationary where the
    nuisance is standard normal, unless the factorization has a ``step_part`` of its own.

    Args:
        factorization: Any model that fulfils the protocol.
        latent: Where the walk stands.
        name: The part that moves.
        keep: r, in [0, 1].
        generator: Source of the noise.

    Raises:
        ValueError: If there is no such part, ``keep`` is outside of [0, 1], or the part is the
            class of a factorization that has no density of it.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must lie in [0, 1], got {keep}")
    if (own := getattr(factorization, "step_part", None)) is not None:
        return own(latent, name, keep, generator)
    _check_part(factorization, name)
    if name == CLASS:
        raise ValueError(
            f"{type(factorization).__name__} has no density of the class part, so no walk in it "
            "is stationary. Walk in 'nuisance', or in a concept of a svae.ConceptBridge."
        )
    noise = factorization.sample_nuisance(latent, 1, generator)[0]
    return Latent(latent.z_class, keep * latent.z_nuisance + (1 - keep**2) ** 0.5 * noise)


def _check_part(factorization: Factorization, name: str) -> None:
    known = parts(factorization)
    if name not in known:
        raise ValueError(f"there is no part {name!r}, the latent has {', '.join(known)}")


@torch.no_grad()
def check_protocol(factorization: object, x: Float[Tensor, "batch *event"]) -> None:
    """Calls each of the four methods once and says which does not do what the protocol asks.

    Args:
        factorization: What claims to fulfil the protocol.
        x: At least two inputs.

    Raises:
        TypeError: If a method is missing or gives something of another kind.
        ValueError: If there are fewer than two inputs, or a method gives another shape.
    """
    name = type(factorization).__name__
    if len(x) < 2:
        raise ValueError(f"checking takes at least 2 inputs, got {len(x)}")
    missing = [
        method
        for method in ("encode", "decode", "predict", "sample_nuisance")
        if not callable(getattr(factorization, method, None))
    ]
    if missing or not isinstance(factorization, Factorization):
        raise TypeError(
            f"{name} has no {' and no '.join(missing)}; a factorization needs encode, decode, "
            "predict and sample_nuisance (see svae.Factorization)"
        )
    latent = factorization.encode(x)
    if not (isinstance(latent, tuple) and hasattr(latent, "z_class")):
        raise TypeError(
            f"{name}.encode gives a {type(latent).__name__}, expected svae.Latent(z_class, "
            "z_nuisance)"
        )
    nuisance = latent.z_nuisance
    if nuisance.ndim != 2 or nuisance.shape[1] == 0:
        raise ValueError(
            f"{name}.encode gives a z_nuisance of shape {tuple(nuisance.shape)}, expected (batch, "
            "n_nuisance) with at least one dim: without a nuisance there is nothing to audit"
        )
    with torch.random.fork_rng():  # a look leaves no trace
        drawn = factorization.sample_nuisance(latent, 3)
    n, logits = len(x), factorization.predict(x)
    shapes = {
        "encode(x).z_class": (latent.z_class, (n, *latent.z_class.shape[1:])),
        "encode(x).z_nuisance": (nuisance, (n, *nuisance.shape[1:])),
        "decode(latent)": (factorization.decode(latent), tuple(x.shape)),
        "predict(x)": (logits, (n, logits.shape[-1])),
        "sample_nuisance(latent, 3)": (drawn, (3, *nuisance.shape)),
    }
    for call, (value, wanted) in shapes.items():
        if tuple(value.shape) != tuple(wanted):
            raise ValueError(
                f"{name}.{call} has shape {tuple(value.shape)}, expected {tuple(wanted)}"
            )
    if logits.shape[1] < 2:
        raise ValueError(f"{name}.predict(x) has one class only; an answer needs at least two")


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

"""What one does with the parts of a latent: swap, mix, walk, resample and ask the model.

Every function takes any :class:`svae.Factorization`. A :class:`svae.ConceptBridge` has a part for
each concept and the residual; any other family has ``class`` and ``nuisance``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.factorization import (
    Factorization,
    part,
    parts,
    read,
    sample_part,
    step_part,
    with_part,
)
from svae.latent import Latent

__all__ = [
    "Lines",
    "Represented",
    "Response",
    "interpolate_part",
    "linearisation",
    "resample_part",
    "response",
    "swap_part",
    "transfer_grid",
    "walk_part",
]

_CHUNK = 1000  # latents decoded or read at a time


@runtime_checkable
class Represented(Protocol):
    """A factorization of a network's representation, which it can go back to."""

    def to_representation(self, latent: Latent) -> Tensor:
        """The representation that a latent stands for."""
        ...

    def to_latent(self, representation: Tensor) -> Latent:
        """The latent of a representation."""
        ...


@torch.no_grad()
def swap_part(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    other: Float[Tensor, "batch *event"],
    name: str | Sequence[str],
) -> Float[Tensor, "batch *event"]:
    """Decodes ``x`` with one part, or several, of ``other``, row by row: an analogy.

    Args:
        factorization: Any model that fulfils the protocol.
        x: What is kept, but for the part.
        other: What the part is taken from.
        name: The part or parts.

    Raises:
        ValueError: If the two batches have different shapes, or there is no such part.
    """
    if x.shape != other.shape:
        raise ValueError(
            f"x and other must have the same shape, got {tuple(x.shape)} and "
            f"{tuple(other.shape)}. Use other.expand_as(x) to give one part to all."
        )
    latent, source = factorization.encode(x), factorization.encode(other)
    return decoded(factorization, swapped(factorization, latent, source, name))


def swapped(
    factorization: Factorization, latent: Latent, source: Latent, name: str | Sequence[str]
) -> Latent:
    """A latent with one part, or several, of another."""
    for each in [name] if isinstance(name, str) else name:
        latent = with_part(factorization, latent, each, part(factorization, source, each))
    return latent


@torch.no_grad()
def transfer_grid(
    factorization: Factorization,
    x: Float[Tensor, "n *event"],
    name: str | Sequence[str],
    other: Float[Tensor, "m *event"] | None = None,
) -> Float[Tensor, "n m *event"]:
    """Every ``x`` with the part of every ``other``: row i is all of ``x[i]`` but for the part.

    Args:
        factorization: Any model that fulfils the protocol.
        x: What is kept, one row each.
        name: The part or parts that the columns give.
        other: What they are taken from; ``x`` itself if None.
    """
    other = x if other is None else other
    n, m = len(x), len(other)
    latent = factorization.encode(x).map(lambda z: z.repeat_interleave(m, 0))
    source = factorization.encode(other).map(lambda z: z.repeat(n, *[1] * (z.dim() - 1)))
    images = decoded(factorization, swapped(factorization, latent, source, name))
    return images.unflatten(0, (n, m))


@torch.no_grad()
def interpolate_part(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    other: Float[Tensor, "batch *event"],
    name: str | Sequence[str],
    n: int = 7,
) -> Float[Tensor, "n batch *event"]:
    """A straight line within one part, or several, from ``x`` to ``other``; the rest stays.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Where the line begins.
        other: What the part is at its end.
        name: The part or parts.
        n: Points of the line, ends among them, at least 2.

    Raises:
        ValueError: If ``n`` is less than 2.
    """
    _check_points(n)
    start, end = factorization.encode(x), factorization.encode(other)
    images = []
    for share in torch.linspace(0, 1, n).tolist():
        latent = start
        for each in [name] if isinstance(name, str) else name:
            a, b = part(factorization, start, each), part(factorization, end, each)
            latent = with_part(factorization, latent, each, a + share * (b - a))
        images.append(decoded(factorization, latent))
    return torch.stack(images)


@torch.no_grad()
def resample_part(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    name: str | Sequence[str],
    n: int = 8,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n batch *event"]:
    """Decodes each input ``n`` times with one part, or several, drawn anew.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        name: The part or parts.
        n: Draws for each input, at least 1.
        generator: Source of the noise.
    """
    latent = resampled(factorization, factorization.encode(x), name, n, generator)
    return decoded(factorization, latent).unflatten(0, (n, len(x)))


def resampled(
    factorization: Factorization,
    latent: Latent,
    name: str | Sequence[str],
    n: int = 1,
    generator: torch.Generator | None = None,
) -> Latent:
    """``n`` copies of a latent, joined into one batch, with parts drawn anew."""
    names = [name] if isinstance(name, str) else list(name)
    draws = [sample_part(factorization, latent, each, n, generator) for each in names]
    many = latent.map(lambda z: z.expand(n, *z.shape).flatten(0, 1))
    for each, drawn in zip(names, draws, strict=True):
        many = with_part(factorization, many, each, drawn.flatten(0, 1))
    return many


@torch.no_grad()
def walk_part(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    name: str,
    n_steps: int = 50,
    keep: float = 0.9,
    generator: torch.Generator | None = None,
) -> Latent:
    """A stationary random walk within one part, from each input on; the rest stays.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Where the walks begin.
        name: The part.
        n_steps: Steps, at least 1.
        keep: Correlation of neighbours, in [0, 1].
        generator: Source of the noise.

    Returns:
        Latents whose first dim is the step, ``n_steps + 1`` with the beginning.

    Raises:
        ValueError: If ``n_steps`` is less than 1.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    path = [factorization.encode(x)]
    for _ in range(n_steps):
        path.append(step_part(factorization, path[-1], name, keep, generator))
    return Latent(*(torch.stack(steps) for steps in zip(*path, strict=True)))


class Response(NamedTuple):
    r"""What the model answers when one part is drawn anew.

    Attributes:
        histogram: Share of each answer, ``(batch, classes)``.
        entropy: Of that histogram, over :math:`\log K`, in [0, 1], ``(batch,)``. The answers are
            counted and their probabilities not averaged: a network that is unsure of everything
            does not respond to the part.
        spread: Standard deviation of the answer's number, ``(batch,)``, as the paper gives it.
        kept: Share of answers that are that of the input, ``(batch,)``.
    """

    histogram: Tensor
    entropy: Tensor
    spread: Tensor
    kept: Tensor


@torch.no_grad()
def response(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    name: str | Sequence[str],
    n: int = 100,
    generator: torch.Generator | None = None,
) -> Response:
    r"""Draws one part anew, or several, and asks the model each time.

    The answer is :func:`svae.read`: for a concept bridge the rest of the frozen network, exactly.

    References:
        A Disentangling Invertible Interpretation Network for Explaining Latent Representations
        (Esser et al., 2020), https://arxiv.org/abs/2004.13166

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        name: The part or parts.
        n: Draws for each input, at least 1.
        generator: Source of the draws.
    """
    latent = factorization.encode(x)
    own = read(factorization, latent).argmax(-1)
    n_classes = 0
    answers = []
    for some in _counts(n, max(1, _CHUNK // len(x))):
        many = resampled(factorization, latent, name, some, generator)
        logits = read(factorization, many).unflatten(0, (some, len(x)))
        n_classes = logits.shape[-1]
        answers.append(logits.argmax(-1))
    answer: Int[Tensor, "n batch"] = torch.cat(answers)
    histogram = torch.nn.functional.one_hot(answer, n_classes).float().mean(0)
    entropy = -(histogram * histogram.clamp(min=1e-12).log()).sum(-1) / math.log(n_classes)
    return Response(
        histogram,
        entropy.clamp(0, 1),
        answer.float().std(0, correction=0),
        (answer == own).float().mean(0),
    )


class Lines(NamedTuple):
    """The same way twice, decoded: straight in the latent, and straight in the representation.

    Attributes:
        latent: ``(n, batch, *event)``.
        representation: The same shape.
    """

    latent: Tensor
    representation: Tensor


@torch.no_grad()
def linearisation(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    other: Float[Tensor, "batch *event"],
    n: int = 7,
) -> Lines:
    """From ``x`` to ``other`` on a straight line in the latent, and on one in the representation.

    A flow that has made the representation's density Gaussian keeps the middle of its line likely;
    the middle of the other is often between two pictures and none itself.

    Args:
        factorization: One with a representation, such as a :class:`svae.ConceptBridge`.
        x: Where the lines begin.
        other: Where they end.
        n: Points of the line, ends among them, at least 2.

    Raises:
        TypeError: If the factorization has no representation.
        ValueError: If ``n`` is less than 2.
    """
    _check_points(n)
    if not isinstance(factorization, Represented):
        raise TypeError(
            f"{type(factorization).__name__} has no representation to draw a line in: it needs "
            "to_representation and to_latent, as a svae.ConceptBridge has them"
        )
    start, end = factorization.encode(x), factorization.encode(other)
    ends = [factorization.to_representation(latent) for latent in (start, end)]
    in_latent, in_representation = [], []
    for share in torch.linspace(0, 1, n).tolist():
        mixed = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
        in_latent.append(decoded(factorization, Latent(*mixed)))
        between = factorization.to_latent(ends[0] + share * (ends[1] - ends[0]))
        in_representation.append(decoded(factorization, between))
    return Lines(torch.stack(in_latent), torch.stack(in_representation))


def codes(
    factorization: Factorization, x: Float[Tensor, "n *event"]
) -> dict[str, Float[Tensor, "n ..."]]:
    """Every part of the latents of ``x``, by name; those without dims are left out."""
    latents = [factorization.encode(chunk) for chunk in x.split(_CHUNK)]
    latent = Latent(*(torch.cat(both) for both in zip(*latents, strict=True)))
    found = {name: part(factorization, latent, name) for name in parts(factorization)}
    return {name: code for name, code in found.items() if code.numel()}


def decoded(factorization: Factorization, latent: Latent) -> Tensor:
    """Decodes many latents, some at a time."""
    n = len(latent.z_class)
    rows = torch.arange(n, device=latent.z_class.device).split(_CHUNK)
    return torch.cat([factorization.decode(latent.map(lambda z, r=r: z[r])) for r in rows])


def _check_points(n: int) -> None:
    if n < 2:
        raise ValueError(f"a line needs n >= 2 points, got {n}")


def _counts(total: int, most: int) -> list[int]:
    if total < 1:
        raise ValueError(f"n, the number of draws, must be at least 1, got {total}")
    full, rest = divmod(total, most)
    return [most] * full + ([rest] if rest else [])

"""The ways to say what a concept is: labels, an attribute, pairs of examples, two sketches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.labels import read_labels

__all__ = ["Attribute", "Classes", "Concept", "Evidence", "Pairs", "Sketched", "Together"]

MAX_PAIRS = 20_000  # rendered or drawn for one concept


@dataclass(frozen=True)
class Evidence:
    """What a set of examples says of a concept.

    Attributes:
        values: The value of every example, -1 where it is unknown; or None.
        first, second: Inputs of pairs, or None.
        differ: Whether the pairs differ in the concept and share all else, or the reverse.
        more: Further pairs of the same concept.
    """

    values: Int[Tensor, " n"] | None = None
    first: Float[Tensor, "pairs ..."] | None = None
    second: Float[Tensor, "pairs ..."] | None = None
    differ: bool = False
    more: tuple["Evidence", ...] = ()


@runtime_checkable
class Concept(Protocol):
    """Something that examples can share or differ in.

    Attributes:
        name: Name of its dims.
        is_class: Whether it is the class that the frozen network answers.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_class(self) -> bool: ...

    def evidence(self, examples: Any) -> Evidence:
        """What a set of examples says of it."""
        ...


@dataclass(frozen=True)
class Classes:
    """The class labels of the data: what the frozen network answers.

    Args:
        name: Name of the concept.
    """

    name: str = "class"
    is_class: bool = True

    def evidence(self, examples: Any) -> Evidence:
        """The labels.

        Raises:
            ValueError: If there are none.
        """
        if examples.y is None or not len(examples.y):
            raise ValueError(
                f"the concept {self.name!r} is the class, and the data have no labels. Label "
                "them, or take the frozen network's own answers: frozen.predict(x).argmax(-1)."
            )
        return Evidence(values=read_labels(examples.y).marked.cpu())


@dataclass(frozen=True)
class Attribute:
    """An attribute of the examples, from the columns of ``factors``.

    Args:
        name: Name of the concept.
        column: The column that holds it.
        values: From the whole table ``(n, n_factors)`` to integer values ``(n,)``, -1 for
            unknown; by default the column's own whole numbers, or the quarter of its range that a
            number falls into (by rank) where it has others.
        n_bins: Number of values that a column of other than whole numbers is cut into.

    Raises:
        ValueError: If ``n_bins`` is less than 2.
    """

    name: str
    column: int = 0
    values: Callable[[Tensor], Tensor] | None = None
    n_bins: int = 4
    is_class: bool = False

    def __post_init__(self) -> None:
        if self.n_bins < 2:
            raise ValueError(f"n_bins must be at least 2, got {self.n_bins}")

    def evidence(self, examples: Any) -> Evidence:
        """The attribute's value for every example.

        Raises:
            ValueError: If the data have no factors, or not that column.
        """
        factors = examples.factors
        if factors is None or self.column >= factors.shape[1]:
            has = "none" if factors is None else f"{factors.shape[1]} columns"
            raise ValueError(
                f"the attribute {self.name!r} is column {self.column} of the data's factors, "
                f"which have {has}. Give factors to the data set, or define the concept by pairs."
            )
        if self.values is not None:
            return Evidence(values=self.values(factors).long().cpu())
        column = factors[:, self.column].cpu()
        known = column.isfinite()
        if bool((column[known] == column[known].round()).all()):
            return Evidence(values=torch.where(known, column, -1).long())
        edges = (
            column[known]
            .double()
            .quantile(torch.linspace(0, 1, self.n_bins + 1, dtype=torch.float64)[1:-1])
        )
        binned = torch.bucketize(column.double(), edges)
        return Evidence(values=torch.where(known, binned, -1))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of examples that share the concept, or that differ in it only.

    Args:
        name: Name of the concept.
        first: Inputs, ``(pairs, *event)``, as the network takes them.
        second: The other of each pair.
        differ: False: each pair shares the concept, and nothing else on purpose. True: each pair
            differs in the concept and shares all else.

    Raises:
        ValueError: If there are no pairs, or the two are of unequal length or shape.
    """

    name: str
    first: Tensor
    second: Tensor
    differ: bool = False
    is_class: bool = False

    def __post_init__(self) -> None:
        if self.first.shape != self.second.shape:
            raise ValueError(
                f"the pairs of {self.name!r} must be of equal shape, got "
                f"{tuple(self.first.shape)} and {tuple(self.second.shape)}. Each row of one "
                "belongs to the same row of the other."
            )
        if len(self.first) < 2:
            raise ValueError(
                f"the concept {self.name!r} has {len(self.first)} pairs, expected two or more; a "
                "few hundred are usual"
            )

    def evidence(self, examples: Any) -> Evidence:
        """The pairs themselves, whatever the examples."""
        return Evidence(first=self.first, second=self.second, differ=self.differ)


@runtime_checkable
class Sketch(Protocol):
    """A concept at two values, drawn into any picture; ``svae.sketches.Sketch`` is one."""

    @property
    def name(self) -> str: ...

    def render(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures with the first and with the second value of the concept."""
        ...


@dataclass(frozen=True, eq=False)
class Sketched:
    r"""A concept given by two sketches of it, drawn into the training pictures.

    Every picture x is rendered at both values; :math:`(x, x^a)`, :math:`(x, x^b)` and
    :math:`(x^a, x^b)` differ in the concept only.

    References:
        A Disentangling Invertible Interpretation Network for Explaining Latent Representations
        (Esser et al., 2020), https://arxiv.org/abs/2004.13166

    Args:
        sketch: Renders pictures at the two values.
        n_pictures: Training pictures that are rendered, at most; each gives three pairs.
    """

    sketch: Sketch
    n_pictures: int = 4000
    is_class: bool = False

    @property
    def name(self) -> str:
        """Name of the concept: the sketch's."""
        return self.sketch.name

    def evidence(self, examples: Any) -> Evidence:
        """Three pairs of each of the first pictures."""
        x = examples.floats(self.n_pictures)
        parts = [(chunk, *self.sketch.render(chunk)) for chunk in x.split(500)]
        plain, a, b = (torch.cat(part) for part in zip(*parts, strict=True))
        return Evidence(
            first=torch.cat([plain, plain, a]), second=torch.cat([a, b, b]), differ=True
        )


@dataclass(frozen=True)
class Together:
    """Several kinds of pairs of one concept: such as some that share it, and some that differ.

    Pairs that differ in a concept alone say that nothing else may move with it; pairs that share
    it say that it is one and the same in examples that have nothing else in common.

    Args:
        parts: :class:`Pairs` or :class:`Sketched` of one name.

    Raises:
        ValueError: If there are none, or of different names.
    """

    parts: Sequence[Any]
    is_class: bool = False

    def __post_init__(self) -> None:
        names = sorted({part.name for part in self.parts})
        if len(names) != 1:
            raise ValueError(f"expected pairs of one concept, got those of {names}")

    @property
    def name(self) -> str:
        """Name of the concept."""
        return self.parts[0].name

    def evidence(self, examples: Any) -> Evidence:
        """Those of the first part, and of the others."""
        first, *more = (part.evidence(examples) for part in self.parts)
        return replace(first, more=tuple(more))


def pairs_of_values(
    values: Int[Tensor, " n"], generator: torch.Generator, limit: int = MAX_PAIRS
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Rows of random pairs that share their value."""
    order = torch.randperm(len(values), generator=generator)
    order = order[values[order] >= 0]
    by_value = order[values[order].argsort(stable=True)]
    first, second = by_value, by_value.roll(-1)
    same = values[first] == values[second]
    first, second = first[same], second[same]
    chosen = torch.randperm(len(first), generator=generator)[:limit]
    return first[chosen], second[chosen]

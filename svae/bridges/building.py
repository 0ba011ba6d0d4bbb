"""From a network, concepts and data to a bridge's coordinates, dims and first directions."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from svae.bridges.allotting import allot, score
from svae.bridges.concepts import ConceptBridge
from svae.bridges.coordinates import Coordinates
from svae.bridges.naming import Evidence, pairs_of_values
from svae.bridges.starting import answer_directions, pair_directions
from svae.bridges.storing import representations
from svae.data.batch import as_floats

__all__ = ["PairBank", "Prepared", "prepare", "prepare_more"]

_MAX_BYTES = 2 * 1024**3  # of training representations held in memory
_CHUNK = 500
_N_START = 5000  # examples that the first directions and clouds are taken from


class PairBank:
    """Pairs of representations for one concept.

    Args:
        name: The concept.
        first: Representations, ``(pairs, *shape)``.
        second: The other of each pair.
        differ: Whether the pairs differ in the concept only, or share it.
    """

    def __init__(self, name: str, first: Tensor, second: Tensor, differ: bool) -> None:
        self.name, self.first, self.second, self.differ = name, first, second, differ


class Prepared:
    """What a set of examples says to a bridge: representations, values and pairs.

    Args:
        representations: ``(n, *shape)``.
        values: The value of each example, ``(n, concepts with values)``, -1 where unknown.
        banks: Pairs of the other concepts.
    """

    def __init__(self, representations: Tensor, values: Tensor, banks: list[PairBank]) -> None:
        self.representations, self.values, self.banks = representations, values, banks


@torch.no_grad()
def prepare(bridge: ConceptBridge, train: Any, seed: int = 0) -> Prepared:
    """Measures the training data and builds the bridge, unless it is built already.

    Dims are allotted by :func:`svae.bridges.allot`. Only the class is not: K answers are K - 1
    differences of logits, so that many dims can hold them, and each further one would take from
    the residual what the network may well ignore. The coordinates are turned so that the dims of
    each concept start along the directions that its pairs share, those of the class along the
    directions that the answer depends on; the flow goes on from there.

    Args:
        bridge: What is to be fitted.
        train: Examples such as :class:`svae.data.ArraySet`.
        seed: Of the pairs.

    Raises:
        ValueError: If a concept has one value only, the data say nothing of it, or the dims
            given leave nothing to the residual.
    """
    representations = _represented(bridge, train)
    evidence = [concept.evidence(train) for concept in bridge.concepts]
    banks = _banks(bridge, evidence)
    if bridge.coordinates is None:
        _build(bridge, representations, evidence, banks, seed)
    return Prepared(representations, _values(evidence, len(representations)), banks)


@torch.no_grad()
def prepare_more(bridge: ConceptBridge, examples: Any) -> Prepared:
    """Representations and values of further examples, such as a validation set.

    Nothing is built, and no pair is represented: pairs are for training.
    """
    evidence = [concept.evidence(examples) for concept in bridge.concepts]
    representations = _represented(bridge, examples)
    return Prepared(representations, _values(evidence, len(representations)), [])


def _build(
    bridge: ConceptBridge,
    representations: Tensor,
    evidence: list[Evidence],
    banks: list[PairBank],
    seed: int,
) -> None:
    settings, generator = bridge.settings, torch.Generator().manual_seed(seed)
    coordinates = Coordinates(
        bridge.frozen.shape, settings["max_features"], settings["max_components"]
    )
    coordinates.fit(representations)
    by_name = {bank.name: bank for bank in reversed(banks)}  # the first of each name
    sides: dict[str, tuple[Tensor, Tensor, bool]] = {}
    counts: dict[str, Tensor] = {}
    for concept, found in zip(bridge.concepts, evidence, strict=True):
        name = concept.name
        if found.values is not None:
            values = found.values[: len(representations)]
            counts[name] = _counts(name, values)
            first, second = (representations[rows] for rows in pairs_of_values(values, generator))
        else:
            first, second = by_name[name].first, by_name[name].second
        sides[name] = coordinates(first)[0], coordinates(second)[0], found.differ
        bridge.scores[name] = score(*sides[name], seed=seed)
    start = representations[:_N_START]
    answer = _answer(bridge, coordinates, start, seed)
    dims = _dims(bridge, coordinates.n_features, answer[1])
    directions = _directions(bridge, coordinates.n_features, sides, dims, answer[0], seed)
    if directions.shape[1]:
        coordinates.aim(directions)
    sizes = {name: (dims[name], len(counts.get(name, ()))) for name in bridge.concept_names}
    bridge.assemble(coordinates, sizes)
    value = coordinates(start)[0]
    standard = (value - value.mean(0)) / value.std(0).clamp(min=1e-6)
    parts = bridge.split(standard)  # as the flow gives them before its first step
    for concept, found in zip(bridge.concepts, evidence, strict=True):
        if found.values is not None:
            block = bridge.block(concept.name)
            block.set_shares(counts[concept.name])
            block.start(parts[concept.name], found.values[: len(start)])


def _answer(
    bridge: ConceptBridge, coordinates: Coordinates, start: Tensor, seed: int
) -> tuple[Tensor | None, int]:
    """The directions that the network's answer depends on, and how many answers it has."""
    if bridge.answer_concept is None:
        return None, 0
    value, left_over = coordinates(start)

    def head(value: Tensor) -> Tensor:
        return bridge.frozen.head(coordinates.inverse(value, left_over[: len(value)]))

    n_answers = head(value[:2]).shape[-1]
    return answer_directions(head, value, max(1, value.shape[1] // 2), seed), n_answers


def _dims(bridge: ConceptBridge, n_features: int, n_answers: int) -> dict[str, int]:
    given = bridge.settings["dims"]
    if sum(given.values()) >= n_features:
        raise ValueError(
            f"dims={given} leave nothing to the residual: the representation has {n_features} "
            "coordinates. Give fewer dims, or leave them out to have them measured."
        )
    shares = {name: found.share for name, found in bridge.scores.items() if name not in given}
    measured = allot(shares, n_features - sum(given.values()), bridge.settings["temperature"])
    answer = bridge.answer_concept
    if answer is not None and measured.get(answer):
        others = sum(measured.values()) + sum(given.values()) - measured[answer]
        measured[answer] = max(1, min(n_answers - 1, (n_features - others) // 2))
    return {**measured, **given}


def _directions(
    bridge: ConceptBridge,
    n_features: int,
    sides: dict[str, tuple[Tensor, Tensor, bool]],
    dims: dict[str, int],
    answer: Tensor | None,
    seed: int,
) -> Float[Tensor, "D k"]:
    """First directions of all concepts, in their order, orthonormal."""
    found = torch.zeros(n_features, 0)
    for name in bridge.concept_names:
        wanted = dims[name]
        candidates = [pair_directions(*sides[name], wanted + found.shape[1], seed)]
        if name == bridge.answer_concept and answer is not None:
            candidates.insert(0, answer)
        found = _extended(found, torch.cat(candidates, 1), wanted)
    return found


def _extended(basis: Tensor, candidates: Tensor, n: int) -> Tensor:
    """The basis and up to ``n`` of the candidates, made orthogonal to it; random ones fill up."""
    total = basis.shape[1] + n
    generator = torch.Generator().manual_seed(total)
    fill = torch.randn(len(basis), n, generator=generator).to(basis)
    for direction in torch.cat([candidates, fill], 1).unbind(1):
        if basis.shape[1] == total:
            break
        for _ in range(2):  # once more, for what rounding left
            direction = direction - basis @ (basis.T @ direction)
            norm = direction.norm()
            direction = direction / norm.clamp(min=1e-12)
        if norm > 1e-3:
            basis = torch.cat([basis, direction.unsqueeze(1)], 1)
    return basis


def _represented(bridge: ConceptBridge, examples: Any) -> Tensor:
    frozen = bridge.frozen
    if frozen.output_shape is None:
        frozen.representation(next(_floats(examples, 2)))
    n = max(2, min(len(examples), _MAX_BYTES // (4 * math.prod(frozen.shape))))
    return torch.cat(
        [*representations(frozen.representation, _floats(examples, n), "examples")]
    ).float()


def _values(evidence: Sequence[Evidence], n: int) -> Tensor:
    """The value of each of the first ``n`` examples, a column for each concept that has values."""
    values = [found.values[:n] for found in evidence if found.values is not None]
    return torch.stack(values, 1) if values else torch.zeros(n, 0, dtype=torch.int64)


def _banks(bridge: ConceptBridge, evidence: Sequence[Evidence]) -> list[PairBank]:
    """The pairs of every concept that has some, represented."""
    banks, show = [], bridge.frozen.representation
    for concept, found in zip(bridge.concepts, evidence, strict=True):
        for one in (found, *found.more):
            if one.first is None or one.second is None:
                continue
            pairs = f"pairs of {concept.name!r},"
            first, second = (
                torch.cat([*representations(show, side.split(_CHUNK), pairs)]).float()
                for side in (one.first, one.second)
            )
            banks.append(PairBank(concept.name, first, second, one.differ))
    return banks


def _counts(name: str, values: Tensor) -> Tensor:
    known = values[values >= 0]
    counts = torch.bincount(known) if len(known) else torch.zeros(0)
    n_values = int((counts > 0).sum())
    if n_values < 2:
        raise ValueError(
            f"the concept {name!r} has {n_values} value(s) in the training data, expected two or "
            "more: what never changes is no concept. Was the set sorted before it was cut?"
        )
    return counts.float()


def _floats(examples: Any, n: int) -> Iterator[Tensor]:
    """The first ``n`` examples, as the network takes them, in chunks."""
    for rows in torch.arange(n).split(_CHUNK):
        yield as_floats(examples.batch(rows).x)

"""Whatever goes together trains, from a graph."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from svae import guides, likelihoods, priors
from svae.compilation import CompiledLoss, Values
from svae.flows import ConditionalFlow
from tests.parts import (
    FAMILIES,
    GUIDES,
    HEADS,
    LIKELIHOODS,
    PRIORS,
    SPLIT,
    K,
    Parts,
    built,
    encoder,
    flow_prior,
)

# Settings that make another distribution of the same class.
VARIANTS: dict[str, dict[str, Callable[[], Any]]] = {
    "prior": {
        "Unconditional": lambda: priors.FlowPrior(ConditionalFlow(SPLIT.n_nuisance, 0, 1, (8,))),
        "Spline": lambda: flow_prior(bins=4),
        "Rotation": lambda: flow_prior(rotate=True),
    },
    "likelihood": {"FixedScale": lambda: likelihoods.Gaussian(0.3, learned=False)},
    "guide": {
        "JointCovariance": lambda: guides.FullCovarianceGuide(encoder(), SPLIT, joint=True),
        "TwoTrunks": lambda: guides.MeanFieldGuide(encoder(), SPLIT, style_encoder=encoder()),
    },
}


PARTS: dict[str, dict[type, Callable[[], Any]]] = {
    "guide": GUIDES, "prior": PRIORS, "likelihood": LIKELIHOODS, "head": HEADS
}  # fmt: skip


def named(choice: Sequence[type]) -> Any:
    """A part of each family by its class."""
    parts = zip(PARTS.items(), choice, strict=True)
    return pytest.param(
        {name: family[kind] for (name, family), kind in parts},
        id="-".join(kind.__name__ for kind in choice),
    )


def examples() -> tuple[Tensor, Tensor]:
    """In the support of every likelihood: two 8-bit levels, then one of four categories."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(40) % K
    levels = torch.randint(256, (40, 2), generator=generator) / 255
    return torch.cat([levels, functional.one_hot(y % 4, 4)], -1), y


def combinations() -> Iterator[Any]:
    """Every guide with every prior, likelihood and head."""
    for choice in itertools.product(*PARTS.values()):
        yield named(choice)


def pairs() -> Iterator[Any]:
    """Few of them that have every two parts together; the variants with the usual others."""
    left = {
        pair
        for one, other in itertools.combinations(PARTS.values(), 2)
        for pair in itertools.product(one, other)
    }
    choices = [(c, set(itertools.combinations(c, 2))) for c in itertools.product(*PARTS.values())]
    while left:
        choice, found = max(choices, key=lambda one: len(one[1] & left))
        left -= found
        yield named(choice)
    for name, cases in VARIANTS.items():
        for variant, case in cases.items():
            yield pytest.param({name: case}, id=variant)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_part_of_the_package_is_forgotten(family: str) -> None:
    cases, modules, base = FAMILIES[family]
    concrete = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__.startswith(module.__name__)
        and issubclass(kind, base)
        and not inspect.isabstract(kind)
    }
    assert set(cases) == concrete


@pytest.mark.slow
@pytest.mark.parametrize("parts_of", list(combinations()))
def test_twenty_steps_lower_the_loss(parts_of: dict[str, Callable[[], Any]]) -> None:
    parts = built_of(parts_of)
    assert_lower(parts, parts.loss)


@pytest.mark.slow
@pytest.mark.parametrize("parts_of", list(pairs()))  # recording a graph takes far longer
def test_twenty_steps_from_a_graph_lower_the_loss(parts_of: dict[str, Callable[[], Any]]) -> None:
    parts = built_of(parts_of)
    loss = CompiledLoss(parts.loss, parts, compiler=False)
    assert_lower(parts, loss)
    assert loss.reason is None
    assert loss.n_graphs == 1


def built_of(parts_of: dict[str, Callable[[], Any]]) -> Parts:
    torch.manual_seed(0)
    return built(**{name: part() for name, part in parts_of.items()})


def assert_lower(parts: Parts, loss: Callable[..., tuple[Tensor, Values]]) -> None:
    x, y = examples()
    optimizer = torch.optim.Adam(parts.parameters(), lr=1e-2)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value, _ = loss(x, y)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert sum(values[-5:]) < sum(values[:5])

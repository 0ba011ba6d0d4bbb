"""Flows as graphs, without the shape checker of the tests, which is no part of any graph.

``python -m tests.flow_graphs [--flows NAME ...] [--backend inductor]`` prints the error of every
case as JSON.
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from svae.flows import ConditionalFlow
from svae.nets import MapEncoder, MLPEncoder

MAP, HIDDEN = (2, 3, 6), (8, 8)
# Several blocks are a chain of one, which the first shows; each takes a compiler as long again.
FLOWS: dict[str, Callable[[], ConditionalFlow]] = {
    "affine": lambda: ConditionalFlow(5, 0, 2, HIDDEN, must_start=True),
    "affine, context": lambda: ConditionalFlow(5, 3, 1, HIDDEN),
    "affine, rotation": lambda: ConditionalFlow(5, 0, 1, HIDDEN, rotate=True),
    "affine, maps, rotation": lambda: ConditionalFlow(
        4, 3, 1, HIDDEN, rotate=True, must_start=True, embed=MapEncoder(MAP, 3, 4)
    ),
    "spline": lambda: ConditionalFlow(5, 0, 1, HIDDEN, bins=4),
    "spline, vectors, rotation": lambda: ConditionalFlow(
        5, 3, 1, HIDDEN, bins=4, rotate=True, embed=MLPEncoder((7,), 3, (6,))
    ),
    "one feature": lambda: ConditionalFlow(1, 0, 1, HIDDEN),
    "one feature, context": lambda: ConditionalFlow(1, 3, 1, HIDDEN, bins=4),
}
DIRECTIONS = ("forward", "inverse")


class Direction(nn.Module):
    """One direction of a flow as a module of its own, which is what can be exported."""

    def __init__(self, flow: ConditionalFlow, direction: str) -> None:
        super().__init__()
        self.flow, self.direction = flow, direction

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return getattr(self.flow, self.direction)(*inputs)


def started(build: Callable[[], ConditionalFlow], n: int) -> tuple[ConditionalFlow, list[Tensor]]:
    """A flow as after training, and ``n`` inputs of it."""
    torch.manual_seed(0)
    flow = build()
    shape = (flow.context,) if flow.embed is None else flow.embed.shape
    inputs = [torch.randn(n, flow.features)]
    if flow.context:
        inputs.append(torch.randn(n, *shape))  # pyright: ignore[reportGeneralTypeIssues]
    flow(*inputs)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    return flow, inputs


def gap(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Largest difference of two results of one shape and dtype, relative to the size of each."""
    pairs = list(zip(found, expected, strict=True))
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return max(
        float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1.0))
        for a, b in pairs
    )


def gradients(flow: ConditionalFlow, found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradient of both results with respect to all that is learned."""
    total = found[0].square().sum() + found[1].sum()
    return torch.autograd.grad(total, list(flow.parameters()))


def compiled(flow: ConditionalFlow, inputs: list[Tensor], direction: str, backend: str) -> float:
    """Error of values, log-determinants and gradients, training and evaluating, in one graph.

    A compiler that takes half a minute for a graph is given that of training alone: a flow that
    has started does the same in both modes, as the other backend shows.
    """
    errors = []
    for training in (True, False) if backend == "aot_eager" else (True,):
        flow.train(training)
        as_written = getattr(flow, direction)
        graph = torch.compile(as_written, fullgraph=True, backend=backend)
        found, expected = graph(*inputs), as_written(*inputs)
        errors.append(gap(found, expected))
        errors.append(gap(gradients(flow, found), gradients(flow, expected)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = graph(*inputs), as_written(*inputs)
    assert found[0].dtype == found[1].dtype == torch.float32
    # Only an embedding runs in half precision, where rounding may come in another order.
    errors.append(gap(found, expected) if flow.embed is None else 0.0)
    torch.compiler.reset()
    return max(errors)


def exported(flow: ConditionalFlow, inputs: list[Tensor], direction: str) -> float:
    """Error of a graph exported for batches of any size, on other sizes than its example."""
    any_size = (tuple({0: torch.export.Dim.AUTO} for _ in inputs),)
    module = Direction(flow.eval(), direction)
    program = torch.export.export(module, tuple(inputs), dynamic_shapes=any_size).module()
    expected = module(*inputs)
    rows = [program(*(value[i : i + 1] for value in inputs)) for i in range(2)]
    errors = [gap(row, tuple(v[i : i + 1] for v in expected)) for i, row in enumerate(rows)]
    twice = program(*(torch.cat([value, value]) for value in inputs))
    return max(*errors, gap(twice, tuple(torch.cat([v, v]) for v in expected)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flows", nargs="+", default=list(FLOWS))
    parser.add_argument("--backend", default="aot_eager")
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    for name in arguments.flows:
        for direction in DIRECTIONS:
            flow, inputs = started(FLOWS[name], 6)
            key = f"{name}, {direction}"
            found[f"{key}, compiled"] = compiled(flow, inputs, direction, arguments.backend)
            if arguments.backend == "aot_eager":  # an export is of no backend
                found[f"{key}, exported"] = exported(flow, inputs, direction)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()

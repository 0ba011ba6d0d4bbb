"""A loss that runs from a compiled graph of itself and of its gradient."""

import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from svae.compilation.guards import Guards
from svae.compilation.recording import (
    Loss,
    Outcome,
    Record,
    Refused,
    Values,
    as_in_training,
    as_recorded,
    autocast_of,
    generators_kept,
    undone,
)
from svae.sites import keep_parameters_local

__all__ = ["MAX_RENEWALS", "CompiledLoss", "NotCompiled"]

MAX_RENEWALS = 4  # of one loss, after attributes of its module have changed

_HERE = Path(__file__).parent
_OTHERS = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")})


class NotCompiled(UserWarning):
    """A loss cannot be recorded as a graph, so it runs as it is written."""


class CompiledLoss:
    r"""Runs a loss from a compiled graph of itself and of its gradient.

    Called like the loss, it gives the same: a scalar to call ``backward`` on and named scalars
    without gradient. The gradient with respect to all parameters of ``module`` that require one is
    part of the graph, so ``backward`` only hands it over.

    A loss that needs the *value* of a tensor (``.item()``, ``if``, a shape that depends on data),
    changes an attribute of a module while it runs, or takes numbers from elsewhere than torch's
    generator cannot be repeated from a record: it runs as it is written, after one
    :class:`NotCompiled` warning with the line and the reason. Before it is used, a graph has to
    give the loss and the gradient of the code that it was recorded from, for the same noise.
    Modes, hooks, sub-modules, attributes (three levels deep) and which parameters require a
    gradient are compared before every step, and a change is recorded anew. What a plain function
    keeps outside of ``module`` cannot be seen.

    Args:
        loss: Takes tensors, gives a scalar and a dict of named scalars.
        module: Holds every parameter and buffer that ``loss`` reads.
        compiler: Whether Inductor compiles the graph; else it is run operation by operation. None
            asks it for all but convolutions on a CPU, which it makes no faster.
        max_graphs: Number of different inputs (shapes, dtypes, devices, precision) that get a
            graph; others, such as a smaller last batch, run as they are written.
        on_compiled: Called with the seconds that recording and compiling took.

    Raises:
        ValueError: If ``max_graphs`` is less than 1.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> loss = CompiledLoss(lambda x: (net(x).square().mean(), {}), net, compiler=False)
        >>> loss(torch.ones(3, 2))[0].backward()
        >>> net.weight.grad.shape, loss.n_graphs
        (torch.Size([1, 2]), 1)
    """

    def __init__(
        self,
        loss: Loss,
        module: nn.Module,
        *,
        compiler: bool | None = None,
        max_graphs: int = 2,
        on_compiled: Callable[[float], object] | None = None,
    ) -> None:
        if max_graphs < 1:
            raise ValueError(f"max_graphs must be at least 1, got {max_graphs}")
        keep_parameters_local(module)
        self.loss, self.module = loss, module
        self.compiler, self.max_graphs, self.on_compiled = compiler, max_graphs, on_compiled
        self.n_graphs = 0
        self.reason: str | None = None
        self._graphs: dict[object, _Graph] = {}
        self._renewals = 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Values]:
        """The loss and its named values."""
        graph = self._graph(inputs) if self._possible(inputs) else None
        if graph is None:
            with as_in_training():
                return self.loss(*inputs)
        values, gradients = graph.run(inputs)
        loss = _HandOver.apply(values[0], gradients, *graph.trainable)
        assert isinstance(loss, Tensor)
        return loss, dict(zip(graph.names, values[1:].unbind(), strict=True))

    def _possible(self, inputs: tuple[Tensor, ...]) -> bool:
        wanted = self.reason is None and torch.is_grad_enabled()
        # Gradients for inputs, or gradients of gradients, are none of what was recorded.
        return wanted and not any(x.requires_grad for x in inputs)

    def _graph(self, inputs: tuple[Tensor, ...]) -> "_Graph | None":
        precision = autocast_of(inputs[0].device.type)
        key = (precision, *((x.shape, x.dtype, x.device) for x in inputs))
        graph = self._graphs.get(key)
        if graph is not None and graph.changed() is None:
            return graph
        if graph is None and len(self._graphs) >= self.max_graphs:
            return None
        if graph is not None:
            self._renewals += 1
            if self._renewals > MAX_RENEWALS:
                self._give_up(f"{graph.changed()} changes again and again between steps")
                return None
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a compiler's warnings are not the user's affair
                self._initialise(inputs)
                with generators_kept():
                    graph = _Graph(self.loss, self.module, inputs, precision, self.compiler)
        except Refused as refusal:
            self._give_up(str(refusal))
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, eager code decides
            self._give_up(f"{_line(error)}: {_meaning(error)}")
            return None
        self._graphs[key] = graph
        self.n_graphs += 1
        if self.on_compiled is not None:
            self.on_compiled(time.perf_counter() - start)
        return graph

    def _initialise(self, inputs: tuple[Tensor, ...]) -> None:
        """Lets modules that start from their first batch see it, which no graph can repeat."""
        pending = [m for m in self.module.modules() if getattr(m, "needs_data", False)]
        if not pending:
            return
        started = {id(b) for m in pending for b in m.buffers()}
        others = [b for b in self.module.buffers() if id(b) not in started]
        with torch.no_grad(), as_in_training(), undone(others, inputs[0].device):
            self.loss(*inputs)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._graphs.clear()
        warnings.warn(
            f"the loss cannot be compiled and runs as it is written, only slower: {reason}",
            NotCompiled,
            stacklevel=4,
        )


class _HandOver(torch.autograd.Function):
    """Gives gradients that are known already to the parameters they belong to."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (outer,) = grads
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("a compiled loss has one gradient: call backward on it only once")
        # A factor on the loss, as gradient accumulation and loss scaling put on it. On an
        # accelerator, asking whether it is 1 would wait for everything before.
        if outer.is_cuda or float(outer) != 1:
            gradients = torch._foreach_mul(gradients, outer.to(gradients[0].dtype))
        return None, None, *gradients


class _Graph:
    """One recorded step for inputs of one kind."""

    def __init__(
        self,
        loss: Loss,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        precision: torch.dtype | None,
        compiler: bool | None,
    ) -> None:
        self.device = inputs[0].device.type
        self._state = [*module.parameters(), *module.buffers()]
        wanted = Outcome.of_loss(loss, module, self._state, inputs)
        record = Record(loss, module, self._state, precision)
        graph = record.of(inputs)
        self.names = record.names
        self.trainable = [self._state[i] for i in record.trained]
        run: Callable[..., list[Tensor]] = graph
        if compiler is None:
            compiler = self.device != "cpu" or not _has_convolutions(graph)
        if compiler:
            # The generator's own numbers, so that a graph changes no result beyond rounding.
            options: dict[str, Any] = {"fallback_random": True}
            run = torch.compile(graph, fullgraph=True, dynamic=False, options=options)
        with as_recorded(self.device), undone(self._state, inputs[0].device):
            values, *gradients = run(*self._state, *inputs)  # which is when it compiles
            found = Outcome(values[0], dict(zip(record.trained, gradients, strict=True)))
        if (difference := found.differs(wanted, 0.05 if precision else 1e-2)) is not None:
            raise Refused(f"{difference} of the graph is another than that of the loss")
        self._run = _CudaGraph(run, self._state, inputs) if self.device == "cuda" else run
        self._guards = Guards(module)

    def changed(self) -> str | None:
        """The first of what was recorded as a constant that is no longer what it was."""
        return self._guards.changed() or (
            self._run.moved() if isinstance(self._run, _CudaGraph) else None
        )

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """All values in one vector, the loss first, and the gradients."""
        with as_recorded(self.device):
            values, *gradients = self._run(*self._state, *inputs)
        return values, gradients


def _has_convolutions(graph: Any) -> bool:
    aten = torch.ops.aten
    return any(node.target is aten.convolution.default for node in graph.graph.nodes)


class _CudaGraph:
    """Replays a recorded run without launching its kernels one by one."""

    def __init__(
        self, run: Callable[..., list[Tensor]], state: list[Tensor], inputs: tuple[Tensor, ...]
    ) -> None:
        self._inputs = [x.clone() for x in inputs]
        self._state = [(t, t.data_ptr()) for t in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with as_recorded("cuda"), undone(state, inputs[0].device):
            with torch.cuda.stream(stream):  # libraries allocate at their first calls
                for _ in range(3):
                    run(*state, *self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = run(*state, *self._inputs)

    def moved(self) -> str | None:
        """Says so where a tensor of the module lies elsewhere than while capturing."""
        same = all(t.data_ptr() == address for t, address in self._state)
        return None if same else "where the module lies in memory"

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        for held, new in zip(self._inputs, tensors[-len(self._inputs) :], strict=True):
            held.copy_(new, non_blocking=True)
        self._graph.replay()
        # The next replay writes into the same memory; gradients are copied by the hand-over.
        return [self._outputs[0].clone(), *self._outputs[1:]]


def _line(error: BaseException) -> str:
    """Where in the user's code, or in ours, it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.parent != _HERE and not frame.filename.startswith((*_OTHERS, "<")):
            return f"{path}:{frame.lineno} ({frame.line})"
    return type(error).__name__


def _meaning(error: BaseException) -> str:
    for kind, meaning in MEANINGS.items():
        if kind in f"{type(error).__name__} {error}":
            return meaning
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


MEANINGS = {
    "DataDependent": "the value of a tensor decides what is computed",
    "DynamicOutputShape": "a shape depends on the values of a tensor",
    "_local_scalar_dense": "the value of a tensor decides what is computed",
    "InvalidCxxCompiler": "no working C++ compiler was found; install g++ or clang",
}

"""A loss written in Pyro, run without Pyro: traced once into a plain graph, then compiled.

Pyro's effect handlers cost milliseconds of Python per step, more than the arithmetic of a small
network. They decide which tensor operations run, never with which numbers, so the operations of
one step can be recorded, those of its gradient with them, and every later step repeats the record.
Parameters, buffers, batch and schedule values are inputs of the graph. Noise is drawn by the same
generator in the same order as without a graph: the same seed gives the same losses either way.
"""

import random
import sysconfig
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from svae.sites import keep_parameters_local

__all__ = ["CompiledLoss", "NotCompiled", "Values"]

Values = dict[str, Tensor]
Loss = Callable[..., tuple[Tensor, Values]]

MAX_RENEWALS = 4  # of one loss, after attributes of its module have changed

_HERE = Path(__file__)
_OTHERS = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")})
# What every module has and is looked at in its own way, or not at all.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
_OWN = (nn.Module().__dict__.keys() - {"training", *_HOOKS}) | {"_pyro_context"}


class NotCompiled(UserWarning):
    """A loss cannot be recorded as a graph, so it runs as it is written."""


class _Refused(Exception):
    """Why a loss may not be repeated from a record, though nothing failed while recording."""


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
            with _as_in_training():
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
        precision = _autocast(inputs[0].device.type)
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
                warnings.simplefilter(
                    "ignore"
                )  # what a compiler warns of is not the user's affair
                self._initialise(inputs)
                graph = _Graph(self.loss, self.module, inputs, precision, self.compiler)
        except _Refused as refusal:
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
        with torch.no_grad(), _as_in_training(), _undone(others, inputs[0].device):
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
        wanted = _Outcome.of_loss(loss, module, self._state, inputs)
        record = _Record(loss, module, self._state, precision)
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
        with _plain(self.device), _undone(self._state, inputs[0].device):
            values, *gradients = run(*self._state, *inputs)  # which is when it compiles
            found = _Outcome(values[0], dict(zip(record.trained, gradients, strict=True)))
        if (difference := found.differs(wanted, 0.05 if precision else 1e-2)) is not None:
            raise _Refused(f"{difference} of the graph is another than that of the loss")
        self._run = _CudaGraph(run, self._state, inputs) if self.device == "cuda" else run
        self._guards = _Guards(module)

    def changed(self) -> str | None:
        """The first of what was recorded as a constant that is no longer what it was."""
        return self._guards.changed() or (
            self._run.moved() if isinstance(self._run, _CudaGraph) else None
        )

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """All values in one vector, the loss first, and the gradients."""
        with _plain(self.device):
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
        with _plain("cuda"), _undone(state, inputs[0].device):
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


class _Outcome:
    """What one run gives: the loss, the gradient by number of the tensor, the generator after."""

    def __init__(self, loss: Tensor, gradients: dict[int, Tensor]) -> None:
        self.loss, self.gradients = loss.detach().double(), gradients
        self.generator = torch.get_rng_state()

    @classmethod
    def of_loss(
        cls, loss: Loss, module: nn.Module, state: list[Tensor], inputs: tuple[Tensor, ...]
    ) -> "_Outcome":
        """Runs the loss as it is written, and undoes what that changed.

        Raises:
            _Refused: If an attribute changes meanwhile.
        """
        hidden = _tensors_of(module)
        versions = [t._version for t in hidden.values()]
        trainable = [i for i, t in enumerate(state) if t.requires_grad]
        with _as_in_training(), _undone([*state, *hidden.values()], inputs[0].device):
            with _Preserved(module) as preserved:
                value, _ = loss(*inputs)
                _refuse(preserved.changed())
            for (path, tensor), version in zip(hidden.items(), versions, strict=True):
                _refuse(None if tensor._version == version else path)
            found = torch.autograd.grad(value, [state[i] for i in trainable], allow_unused=True)
            pairs = zip(trainable, found, strict=True)
            return cls(value, {i: g.detach() for i, g in pairs if g is not None})

    def differs(self, other: "_Outcome", tolerance: float) -> str | None:
        """What of both differs by more than rounding; nothing where one is not finite."""
        if not (self.loss.isfinite() and other.loss.isfinite()):
            return None
        if not torch.isclose(self.loss, other.loss, rtol=tolerance, atol=1e-6):
            return "the loss"
        if not torch.equal(self.generator, other.generator):
            return "the use of the generator"
        if self.gradients.keys() != other.gradients.keys():
            return "the set of parameters with a gradient"
        total = sum(g.double().square().sum() for g in other.gradients.values())
        error = sum(
            (g - other.gradients[i]).double().square().sum() for i, g in self.gradients.items()
        )
        return "the gradient" if error > tolerance**2 * total + 1e-12 else None


def _refuse(changed: str | None) -> None:
    if changed is not None:
        raise _Refused(
            f"{changed.strip()} changes while the loss runs, which a graph cannot repeat"
        )


class _Record:
    """Records the operations of a loss and its gradient.

    Args:
        loss: As in :class:`CompiledLoss`.
        module: As there.
        state: Its parameters and buffers, the first inputs of the graph.
        precision: What autocast casts to, or None.
    """

    def __init__(
        self, loss: Loss, module: nn.Module, state: list[Tensor], precision: torch.dtype | None
    ) -> None:
        self.loss, self.module, self.state, self.precision = loss, module, state, precision
        self.names: list[str] = []
        self.trained: list[int] = []

    def of(self, inputs: tuple[Tensor, ...]) -> Any:
        """The graph: from state and inputs to the values in one vector, then gradients.

        Raises:
            _Refused: If what ran once would run otherwise the next time.
        """
        graph = self._trace(inputs)
        # A number from another generator, a counter or an iterator is another the second time.
        if not _equal(graph, self._trace(inputs)):
            raise _Refused(
                "two records differ: a number comes from elsewhere than torch's generator, from a "
                "counter or an iterator"
            )
        for node in graph.graph.find_nodes(op="get_attr"):
            constant = getattr(graph, str(node.target), None)
            if isinstance(constant, Tensor) and constant.requires_grad:
                raise _Refused(
                    f"a parameter of shape {tuple(constant.shape)} is read that the module does "
                    "not hold as an attribute"
                )
        return graph

    def _trace(self, inputs: tuple[Tensor, ...]) -> Any:
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx

        # Tensors with a shape and no values: whoever asks for a value fails, with the line.
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        tensors = [*(t.detach() for t in self.state), *inputs]
        with _as_in_training(), _Preserved(self.module), fake:
            return make_fx(self._step)(*(fake.from_tensor(t) for t in tensors))

    def _step(self, *tensors: Tensor) -> list[Tensor]:
        given, batch = tensors[: len(self.state)], tensors[len(self.state) :]
        trainable = [i for i, t in enumerate(self.state) if t.requires_grad]
        live = [t.detach() for t in given]
        for i in trainable:
            live[i].requires_grad_()
        place = {id(t): i for i, t in enumerate(self.state)}
        buffers: list[tuple[dict[str, Any], str, int]] = []
        # Wherever a module holds one of them, also modules that several others share.
        for part in self.module.modules():
            held: dict[str, Any]
            for held in (part._parameters, part._buffers):
                for name, tensor in held.items():
                    if id(tensor) in place:
                        held[name] = live[place[id(tensor)]]
                        buffers += [(held, name, place[id(tensor)])] * (held is part._buffers)
        with torch.enable_grad(), _casting(batch[0].device.type, self.precision):
            value, named = self.loss(*batch)
            gradients = torch.autograd.grad(value, [live[i] for i in trainable], allow_unused=True)
        # Buffers that were replaced, not changed in place: all new values before the first copy.
        replaced = {i: held[name] for held, name, i in buffers if held[name] is not live[i]}
        for i, new in {i: new.clone() for i, new in replaced.items()}.items():
            given[i].copy_(new)
        self.names = list(named)
        self.trained = [i for i, g in zip(trainable, gradients, strict=True) if g is not None]
        values = torch.stack([v.detach().to(value.dtype) for v in (value, *named.values())])
        return [values, *(g for g in gradients if g is not None)]


def _equal(a: Any, b: Any) -> bool:
    """Whether two graphs do the same with the same constants."""
    mine, theirs = ({k: v for k, v in vars(g).items() if isinstance(v, Tensor)} for g in (a, b))
    mine, theirs = {**mine, **dict(a.named_buffers())}, {**theirs, **dict(b.named_buffers())}
    return (
        a.code == b.code
        and mine.keys() == theirs.keys()
        and all(torch.equal(value, theirs[name]) for name, value in mine.items())
    )


class _Guards:
    """Everything of a module that a record holds as a constant.

    Attributes by their value, parameters, buffers and sub-modules by what they are: parameters and
    buffers may change in place, being inputs of the graph; a tensor that is neither may not.
    """

    def __init__(self, module: nn.Module) -> None:
        self._simple: list[tuple[dict[str, Any], str, Any, str]] = []
        self._others: list[tuple[dict[str, Any], str, Any, str]] = []
        self._held: list[tuple[dict[str, Any], str, Any, str]] = []
        self._trained: list[tuple[Tensor, bool, str]] = []
        for path, part in module.named_modules():
            for name, value in part.__dict__.items():
                place = (part.__dict__, name)
                if name in _OWN:
                    continue
                if isinstance(value, _SIMPLE):
                    self._simple.append((*place, value, f"{path}.{name}"))
                else:
                    self._others.append((*place, _snapshot(value), f"{path}.{name}"))
                    self._held.append((*place, value, f"{path}.{name}"))
            for held in (part._parameters, part._buffers, part._modules):
                self._held += [(held, n, value, f"{path}.{n}") for n, value in held.items()]
            tensors = {**part._parameters, **part._buffers}.items()
            self._trained += [
                (t, t.requires_grad, f"whether {path}.{name} requires a gradient")
                for name, t in tensors
                if t is not None
            ]

    def changed(self) -> str | None:
        """The path of the first of them that is not what it was."""
        for held, name, value, path in self._simple:
            now = held.get(name, self)
            if now is not value and now != value:
                return path.lstrip(".")
        for held, name, value, path in self._held:
            if held.get(name, self) is not value:
                return path.lstrip(".")
        for tensor, trained, path in self._trained:
            if tensor.requires_grad is not trained:
                return path
        for held, name, value, path in self._others:
            if _snapshot(held.get(name)) != value:
                return path.lstrip(".")
        return None


_SIMPLE = (bool, int, float, str, type(None))


def _snapshot(value: Any, depth: int = 3) -> Any:
    """Something to compare an attribute with later: values inside containers and plain objects."""
    if isinstance(value, _SIMPLE):
        return value
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray | np.generic):
        return value.tobytes()
    if isinstance(value, nn.Module):
        return id(value), value.training
    if (inside := _inside(value)) is not None and depth:
        if isinstance(inside, dict):
            return id(value), [(key, _snapshot(item, depth - 1)) for key, item in inside.items()]
        return id(value), [_snapshot(item, depth - 1) for item in inside]
    return id(value)


def _inside(value: Any) -> Any:
    """The container that holds what a value consists of, or None."""
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        return value
    if isinstance(value, nn.Module | Tensor | type | ModuleType) or callable(value):
        return None
    return getattr(value, "__dict__", None)


def _containers(value: Any, depth: int = 3) -> Iterator[Any]:
    """All containers inside of a value, itself among them."""
    inside = _inside(value)
    if inside is None:
        return
    yield inside
    if depth:
        for item in list(inside.values() if isinstance(inside, dict) else inside):
            yield from _containers(item, depth - 1)


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, part in module.named_modules():
        for name, value in part.__dict__.items():
            if name not in _OWN:
                yield f"{path}.{name}".lstrip("."), value


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module holds as neither parameter nor buffer, by a path for each."""
    found: dict[int, tuple[str, Tensor]] = {}
    for path, value in _attributes(module):
        items = [value]
        for inside in _containers(value):
            items += inside.values() if isinstance(inside, dict) else inside
        found |= {id(item): (path, item) for item in items if isinstance(item, Tensor)}
    # Several of one container have one path.
    return {path + " " * i: tensor for i, (path, tensor) in enumerate(found.values())}


class _Preserved:
    """Puts back what code inside it assigns to attributes of a module, also inside containers."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = [(path, part) for path, part in module.named_modules()]
        self._kept: list[tuple[Any, Any, str]] = []
        for path, part in self._parts:
            held = (part.__dict__, part._parameters, part._buffers, part._modules)
            self._kept += [(container, dict(container), path) for container in held]
        for path, value in _attributes(module):
            for container in _containers(value):
                if not isinstance(container, tuple | frozenset):
                    self._kept.append((container, container.copy(), path))

    def __enter__(self) -> "_Preserved":
        return self

    def __exit__(self, *_: object) -> None:
        for container, kept, _path in self._kept:
            if isinstance(container, list):
                container[:] = kept
            else:
                container.clear()
                container.extend(kept) if isinstance(container, deque) else container.update(kept)

    def changed(self) -> str | None:
        """The path of the first attribute that was assigned; replaced buffers do not count."""
        for container, kept, path in self._kept:
            if any(container is part._buffers for _, part in self._parts):
                continue
            if isinstance(container, dict):
                names = container.keys() ^ kept.keys()
                names |= {n for n in container.keys() & kept.keys() if _new(container[n], kept[n])}
                if names:
                    own = any(container is part.__dict__ for _, part in self._parts)
                    return f"{path}.{min(map(str, names))}".lstrip(".") if own else path
            elif len(container) != len(kept) or any(map(_new, container, kept)):
                return path
        return None


def _new(now: Any, before: Any) -> bool:
    return now is not before and not (isinstance(now, _SIMPLE) and now == before)


def _autocast(device: str) -> torch.dtype | None:
    """The type that autocast uses now, or None."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _casting(device: str, precision: torch.dtype | None) -> torch.autocast:
    # Without the cache: it would keep tensors of the recording for the code that comes after.
    return torch.autocast(
        device, dtype=precision, enabled=precision is not None, cache_enabled=False
    )


@contextmanager
def _plain(device: str) -> Iterator[None]:
    """The casts and the gradient are operations of the graph already."""
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield


@contextmanager
def _undone(tensors: list[Tensor], device: torch.device) -> Iterator[None]:
    """What runs inside neither changes these tensors nor draws from the generators."""
    kept = [t.detach().clone() for t in tensors]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.data.copy_(value)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Python's and NumPy's global generators are after it what they were before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that users draw from
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def _as_in_training() -> Iterator[None]:
    """Without Pyro's validation, which looks at values, and its global store of parameters."""
    with pyro.validation_enabled(False), pyro.settings.context(module_local_params=True):
        yield


def _line(error: BaseException) -> str:
    """Where in the user's code, or in ours, it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path != _HERE and not frame.filename.startswith((*_OTHERS, "<")):
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

"""The operations of a loss and its gradient, recorded on tensors that have no values."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from svae.compilation.guards import Preserved, tensors_of

__all__ = [
    "Loss",
    "Outcome",
    "Record",
    "Refused",
    "Values",
    "as_in_training",
    "as_recorded",
    "autocast_of",
    "generators_kept",
    "undone",
]

Values = dict[str, Tensor]
Loss = Callable[..., tuple[Tensor, Values]]


class Refused(Exception):
    """Why a loss may not be repeated from a record, though nothing failed while recording."""


class Outcome:
    """What one run gives: the loss, the gradient by number of the tensor, the generator after."""

    def __init__(self, loss: Tensor, gradients: dict[int, Tensor]) -> None:
        self.loss, self.gradients = loss.detach().double(), gradients
        self.generator = torch.get_rng_state()

    @classmethod
    def of_loss(
        cls, loss: Loss, module: nn.Module, state: list[Tensor], inputs: tuple[Tensor, ...]
    ) -> "Outcome":
        """Runs the loss as it is written, and undoes what that changed.

        Raises:
            Refused: If an attribute changes meanwhile.
        """
        hidden = tensors_of(module)
        versions = [t._version for t in hidden.values()]
        trainable = [i for i, t in enumerate(state) if t.requires_grad]
        with as_in_training(), undone([*state, *hidden.values()], inputs[0].device):
            with Preserved(module) as preserved:
                value, _ = loss(*inputs)
                _refuse(preserved.changed())
            for (path, tensor), version in zip(hidden.items(), versions, strict=True):
                _refuse(None if tensor._version == version else path)
            found = torch.autograd.grad(value, [state[i] for i in trainable], allow_unused=True)
            pairs = zip(trainable, found, strict=True)
            return cls(value, {i: g.detach() for i, g in pairs if g is not None})

    def differs(self, other: "Outcome", tolerance: float) -> str | None:
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
        raise Refused(
            f"{changed.strip()} changes while the loss runs, which a graph cannot repeat"
        )


class Record:
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
            Refused: If what ran once would run otherwise the next time.
        """
        graph = self._trace(inputs)
        # A number from another generator, a counter or an iterator is another the second time.
        if not _equal(graph, self._trace(inputs)):
            raise Refused(
                "two records differ: a number comes from elsewhere than torch's generator, from a "
                "counter or an iterator"
            )
        for node in graph.graph.find_nodes(op="get_attr"):
            constant = getattr(graph, str(node.target), None)
            if isinstance(constant, Tensor) and constant.requires_grad:
                raise Refused(
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
        with as_in_training(), Preserved(self.module), fake:
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


def autocast_of(device: str) -> torch.dtype | None:
    """The type that autocast uses now, or None."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _casting(device: str, precision: torch.dtype | None) -> torch.autocast:
    # Without the cache: it would keep tensors of the recording for the code that comes after.
    return torch.autocast(
        device, dtype=precision, enabled=precision is not None, cache_enabled=False
    )


@contextmanager
def as_recorded(device: str) -> Iterator[None]:
    """The casts and the gradient are operations of the graph already."""
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield


@contextmanager
def undone(tensors: list[Tensor], device: torch.device) -> Iterator[None]:
    """What runs inside neither changes these tensors nor draws from the generators."""
    kept = [t.detach().clone() for t in tensors]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.data.copy_(value)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Python's and NumPy's global generators are after it what they were before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that users draw from
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def as_in_training() -> Iterator[None]:
    """Without Pyro's validation, which looks at values, and its global store of parameters."""
    with pyro.validation_enabled(False), pyro.settings.context(module_local_params=True):
        yield

"""What a record of a loss holds as a constant, and whether it still is what it was."""

from collections import deque
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["Guards", "Preserved", "tensors_of"]

# What every module has and is looked at in its own way, or not at all.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
_OWN = (nn.Module().__dict__.keys() - {"training", *_HOOKS}) | {"_pyro_context"}
_CONTAINERS = (dict, list, set, deque)
_SIMPLE = (bool, int, float, str, type(None))


class Guards:
    """Everything of a module that a record holds as a constant.

    Attributes by their value, parameters, buffers and sub-modules by what they are: parameters and
    buffers may change in place, being inputs of the graph; a tensor that is neither may not.
    """

    def __init__(self, module: nn.Module) -> None:
        self._simple: list[tuple[dict[str, Any], str, Any, str]] = []
        self._others: list[tuple[dict[str, Any], str, Any, str]] = []
        self._held: list[tuple[dict[str, Any], str, Any, str]] = []
        self._trained: list[tuple[Tensor, bool, str]] = []
        self._empty: list[Any] = []  # containers, and where they are
        self._empty_paths: list[str] = []
        for path, part in module.named_modules():
            for name, value in part.__dict__.items():
                place = (part.__dict__, name)
                if name in _OWN:
                    continue
                if isinstance(value, _SIMPLE):
                    self._simple.append((*place, value, f"{path}.{name}"))
                    continue
                self._held.append((*place, value, f"{path}.{name}"))
                if isinstance(value, _CONTAINERS) and not value:  # as most hooks are
                    self._empty.append(value)
                    self._empty_paths.append(f"{path}.{name}")
                elif not _fixed(value):
                    self._others.append((*place, _snapshot(value), f"{path}.{name}"))
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
        if any(self._empty):
            return next(p for p, now in zip(self._empty_paths, self._empty, strict=True) if now)
        for held, name, value, path in self._others:
            if _snapshot(held.get(name)) != value:
                return path.lstrip(".")
        return None


def _fixed(value: Any) -> bool:
    """Whether a value stays what it is for as long as it is the same object."""
    if isinstance(value, tuple | frozenset):
        return all(map(_fixed, value))
    return isinstance(value, _SIMPLE) or (callable(value) and not isinstance(value, nn.Module))


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
    if isinstance(value, (*_CONTAINERS, tuple, frozenset)):
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


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module holds as neither parameter nor buffer, by a path for each."""
    found: dict[int, tuple[str, Tensor]] = {}
    for path, value in _attributes(module):
        items = [value]
        for inside in _containers(value):
            items += inside.values() if isinstance(inside, dict) else inside
        found |= {id(item): (path, item) for item in items if isinstance(item, Tensor)}
    # Several of one container have one path.
    return {path + " " * i: tensor for i, (path, tensor) in enumerate(found.values())}


class Preserved:
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

    def __enter__(self) -> "Preserved":
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

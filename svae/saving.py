"""Modules described by their constructor's arguments, and files that need no unpickling."""

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Described",
    "checksum",
    "describe",
    "digest_of",
    "load_weights",
    "read_json",
    "rebuild",
    "save_weights",
    "writable",
]

Plain = None | bool | int | float | str
PACKAGE = __name__.partition(".")[0]


class Described:
    """Remembers the arguments of its constructor, so that :func:`describe` can say them.

    Subclasses need do nothing. Only the outermost constructor is recorded.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" not in cls.__dict__:
            return  # no arguments of its own
        build = cls.__init__
        signature = inspect.signature(build)

        @functools.wraps(build)
        def recording(self: "Described", *args: object, **kwargs: object) -> None:
            if "_arguments" not in self.__dict__:  # the outermost one comes first
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                arguments = dict(list(bound.arguments.items())[1:])
                # Past nn.Module.__setattr__, which would register modules a second time.
                object.__setattr__(self, "_arguments", arguments)
            build(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]

        cls.__init__ = recording  # pyright: ignore[reportAttributeAccessIssue]


def describe(value: object) -> Any:
    """Turns an object of this package into JSON that :func:`rebuild` understands.

    Raises:
        TypeError: If the object, or one inside it, is not from this package.
    """
    if isinstance(value, Plain):
        return value
    if isinstance(value, Tensor):
        return {"tensor": value.tolist()}
    if isinstance(value, dict):
        return {"mapping": {str(key): describe(item) for key, item in value.items()}}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    kind = type(value)
    if kind.__module__.partition(".")[0] == PACKAGE:
        if isinstance(value, Described):
            arguments = value.__dict__.get("_arguments", {})
        elif is_dataclass(value):
            arguments = {field.name: getattr(value, field.name) for field in fields(value)}
        else:
            arguments = None
        if arguments is not None:
            return {
                "class": f"{kind.__module__}.{kind.__qualname__}",
                "arguments": {name: describe(item) for name, item in arguments.items()},
            }
    raise TypeError(
        f"{kind.__module__}.{kind.__qualname__} is not a part of this package, so its constructor "
        "cannot be written to a file: give the object again when loading."
    )


def rebuild(description: Any) -> Any:
    """Builds what :func:`describe` wrote. Only classes of this package are ever called.

    Raises:
        ValueError: If the description names anything else.
    """
    if isinstance(description, list):
        return [rebuild(item) for item in description]
    if not isinstance(description, dict):
        return description
    if "tensor" in description:
        return torch.tensor(description["tensor"])
    if "mapping" in description:
        return {key: rebuild(item) for key, item in description["mapping"].items()}
    module, _, name = str(description.get("class", "")).rpartition(".")
    kind = _class(module, name) if _ours(module) else None
    if not (isinstance(kind, type) and (issubclass(kind, Described) or is_dataclass(kind))):
        raise ValueError(
            f"cannot build {description.get('class')!r}: expected a class of this package. "
            "Was the file written by a newer version, or edited?"
        )
    build: Callable[..., Any] = kind
    arguments = description.get("arguments")
    if not isinstance(arguments, dict):
        raise ValueError(f"the description of {name} has no arguments: the file was edited or cut")
    built = {key: rebuild(item) for key, item in arguments.items()}
    try:
        return build(**built)
    except TypeError as error:
        raise ValueError(
            f"cannot build {name} with the arguments {sorted(built)}: {error}. Was the file "
            "written by another version, or edited?"
        ) from error


def _class(module: str, name: str) -> Any:
    if module.endswith("__main__"):  # importing it would run it
        return None
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        return None


def _ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def writable(folder: str | Path) -> Path:
    """The folder, made and tried, before anything is computed that it could lose.

    Raises:
        OSError: If it cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to the folder {folder} ({error.strerror}): give a folder that you may "
            "write to"
        ) from error
    return folder


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes parameters and buffers as safetensors."""
    from safetensors.torch import save_model

    save_model(module, str(path))


def load_weights(module: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Reads parameters and buffers into ``module``, all of them and nothing else.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, belongs to another architecture, or is another than
            that with the checksum ``sha256``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}. Was the model saved with .save(folder)?")
    try:
        load_model(module, str(path), device="cpu")
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no readable safetensors file ({error}). It was damaged or cut short: copy "
            "or train it again."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} belong to another architecture: {error}. Load them with the "
            "configuration they were saved with."
        ) from error
    if sha256 is not None and checksum(path) != sha256:
        raise ValueError(
            f"{path} is not the file that was saved: its checksum differs. It was damaged or "
            "replaced: copy or train it again."
        )


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} in {path.parent}. Expected a folder written by .save(folder)."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable JSON ({error}): copy or train again.") from error

"""Tensors with a row for every example that may be larger than memory."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["representations", "stored"]

MAX_BYTES = 1024**3  # held in memory; more is written to a file as it is computed


def representations(
    show: Callable[[Any], Tensor],
    parts: Iterable[Any],
    what: str = "inputs",
) -> Iterator[Float[Tensor, "chunk *shape"]]:
    """What a layer shows of inputs, part by part.

    Args:
        show: ``representation`` of the network, opened at the layer.
        parts: Inputs in order.
        what: What they are, for messages.

    Raises:
        RuntimeError: If the network cannot take some of them: the first of these is named.
    """
    first = 0
    for part in parts:
        try:
            shown = show(part)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a network of somebody else's may raise
            end = first + len(part) - 1
            row = _first_that_fails(show, part, error)
            place, advice = (
                (f"{first} to {end} together", "It may want fewer at once, or others.")
                if row is None
                else (
                    f"number {first + row} ({_range(part[row])})",
                    "Leave such ones out, or mend them in preprocess=.",
                )
            )
            raise RuntimeError(
                f"the network raised {type(error).__name__} on the {what} {place}: {error}. "
                f"{advice} What was fitted and kept before is still there."
            ) from error
        yield shown
        first += len(part)


def _first_that_fails(show: Callable[[Any], Tensor], part: Any, error: Exception) -> int | None:
    """The first row that fails alone as all did together, where others do not fail."""
    failed = []
    for row in range(len(part)):
        try:
            show(part[row : row + 1])
        except Exception as alone:  # noqa: BLE001  as above
            failed.append(row if type(alone) is type(error) else None)
    return failed[0] if 0 < len(failed) < len(part) else None


def _range(x: Any) -> str:
    if not isinstance(x, Tensor):
        return repr(x)
    return f"values from {float(x.min()):.3g} to {float(x.max()):.3g}"


def stored(
    parts: Iterable[Float[Tensor, "chunk *shape"]], n: int, folder: str | None = None
) -> Float[Tensor, "n *shape"]:
    """Joins parts that are computed one after the other, on disk where they are large.

    What lies on disk is mapped into memory and read as any tensor is; the file has no name any
    more, and its space is free again when the tensor is.

    Args:
        parts: Rows in order.
        n: How many rows there are in all, at least 1.
        folder: Where a file is written; that of the system if None.

    Raises:
        ValueError: If there are more or fewer rows than that.
        OSError: If the disk is full.
    """
    whole: Tensor | None = None
    filled = 0
    for part in parts:
        part = part.detach().cpu().float()
        if whole is None:
            whole = _room((n, *part.shape[1:]), folder)
        if filled + len(part) > n:
            raise ValueError(f"expected {n} rows, got {filled + len(part)} or more")
        whole[filled : filled + len(part)] = part
        filled += len(part)
    if whole is None or filled != n:
        raise ValueError(f"expected {n} rows, got {filled}")
    return whole


def _room(shape: tuple[int, ...], folder: str | None) -> Tensor:
    size = int(torch.Size(shape).numel())
    if 4 * size <= MAX_BYTES:
        return torch.empty(shape)
    handle, path = tempfile.mkstemp(suffix=".representations", dir=folder)
    try:
        os.posix_fallocate(handle, 0, 4 * size)  # a full disk is found now, not while writing
        return torch.from_file(path, shared=True, size=size, dtype=torch.float32).view(shape)
    except OSError as error:
        raise OSError(
            f"no room for representations of {4 * size / 1024**3:.1f} GB in "
            f"{os.path.dirname(path)}: set $TMPDIR to a folder on a larger disk, or use fewer "
            f"examples or a smaller layer ({error})"
        ) from error
    finally:
        os.close(handle)
        os.unlink(path)

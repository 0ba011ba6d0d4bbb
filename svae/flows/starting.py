"""Whether maps that start from their first batch may take the one they see."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["held_start", "may_start"]

_may_start = ContextVar("may_start", default=True)


@contextmanager
def held_start() -> Iterator[None]:
    """Inside it no map starts from its first batch: a look at codes is no training."""
    token = _may_start.set(False)
    try:
        yield
    finally:
        _may_start.reset(token)


def may_start() -> bool:
    """Whether no :func:`held_start` is around."""
    return _may_start.get()

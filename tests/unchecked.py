"""What a user sees: the package without the shape checker that is on in the tests."""

import contextlib
from collections.abc import Iterator

from jaxtyping import config


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """Turns the checker off, so that an error message of the package itself is reached."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)

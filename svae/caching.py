"""What was fitted before, kept by a hash of everything that it depends on."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["cache_folder", "kept", "key_of"]

logger = logging.getLogger("svae")
Kept = TypeVar("Kept")


def cache_folder(folder: str | os.PathLike[str] | None) -> Path:
    """The folder given, else ``$SVAE_CACHE``, else ``~/.cache/svae``."""
    return Path(folder or os.environ.get("SVAE_CACHE") or Path.home() / ".cache" / "svae")


def key_of(content: Mapping[str, Any]) -> str:
    """A name for what depends on ``content`` and nothing else."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def kept(
    path: Path, read: Callable[[], Kept], make: Callable[[], Kept], write: Callable[[Kept], None]
) -> Kept:
    """What lies at ``path``, else what is made now and written there.

    Nothing that is wrong with a cache stops anybody: a file that cannot be read is made again, and
    what cannot be written is not kept; both are logged.

    Args:
        path: The file that is there when all is there.
        read: Gives what was kept.
        make: Makes it.
        write: Keeps it.
    """
    if path.exists():
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - see above
            logger.warning("%s cannot be read (%s): making it again", path, error)
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(made)
    except OSError as error:
        logger.warning(
            "what was fitted cannot be kept in %s (%s); set SVAE_CACHE to a writable folder",
            path.parent,
            error,
        )
    return made

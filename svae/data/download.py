"""Files found on mirrors, downloaded without hanging, whole and checked or not at all.

The download is ours, because torchvision's knows no time limit and leaves half a file behind when
it is interrupted.
"""

import hashlib
import http.client
import os
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

# Seconds in which a mirror must have answered, all mirrors and the look-up of names included.
CONNECT_SECONDS = 6.0


def data_root(root: str | Path | None = None) -> Path:
    """The folder of all data: ``root``, by default ``$SVAE_DATA``, else ``data``."""
    return Path(root or os.environ.get("SVAE_DATA") or "data")


def download(
    files: Mapping[str, str],
    mirrors: Sequence[str],
    folder: Path,
    patience: float | None = None,
) -> None:
    """Puts files into a folder, which is made once all of them have come.

    Args:
        files: File name → its md5 checksum.
        mirrors: Addresses that end in a slash; the first that gives a file wins.
        folder: Where the files go.
        patience: Seconds that the whole download may take; None waits as long as bytes come.
            Either way it is given up within 10 seconds where nothing answers.

    Raises:
        OSError: If no mirror answers in time, or none gives every file with its checksum.
    """
    # In a thread: a look-up of a name knows no time limit and must not hold us.
    fetch = _Fetch(mirrors, files)
    fetch.start()
    start = time.monotonic()
    limit = CONNECT_SECONDS if patience is None else min(CONNECT_SECONDS, patience)
    fetch.answered.wait(limit)
    if not fetch.answered.is_set():
        raise ConnectionError(f"no answer within {limit:g} seconds from {_hosts(mirrors)}")
    fetch.join(None if patience is None else max(0.0, start + patience - time.monotonic()))
    if fetch.is_alive():
        fetch.stopped = True
        raise TimeoutError(f"the download was not complete within {patience:g} seconds")
    if fetch.error is not None:
        raise fetch.error
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in fetch.contents.items():
        # Whole or not at all, also when several processes download at once.
        partial = folder / f"{name}.{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(folder / name)


def _hosts(mirrors: Sequence[str]) -> str:
    return ", ".join(mirror.split("/")[2] for mirror in mirrors)


class _Fetch(threading.Thread):
    """Gets files into memory from the first mirror that gives them.

    Attributes:
        answered: Set when a mirror has sent something, or all have failed.
        stopped: Set it to end the thread at the next chunk.
        error: What went wrong, or None.
        contents: File name → bytes, checked.
    """

    def __init__(self, mirrors: Sequence[str], files: Mapping[str, str]) -> None:
        super().__init__(name="svae-download", daemon=True)
        self.mirrors, self.files = mirrors, files
        self.answered = threading.Event()
        self.stopped = False
        self.error: OSError | None = None
        self.contents: dict[str, bytes] = {}

    def run(self) -> None:
        reasons = []
        for mirror in self.mirrors:
            try:
                for name, checksum in self.files.items():
                    if name not in self.contents:
                        self.contents[name] = self._get(mirror + name, checksum)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)  # without <urlopen error ...>
                reasons.append(f"{_hosts([mirror])}: {reason}")
            else:
                self.answered.set()
                return
        self.error = ConnectionError("; ".join(reasons))
        self.answered.set()

    def _get(self, url: str, checksum: str) -> bytes:
        # One mirror that swallows packets must leave time for the next.
        seconds = CONNECT_SECONDS if self.answered.is_set() else CONNECT_SECONDS / 2
        content = bytearray()
        with urllib.request.urlopen(url, timeout=seconds) as response:
            while chunk := response.read(1 << 16):
                self.answered.set()
                if self.stopped:
                    raise TimeoutError("stopped")
                content += chunk
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksum:
            raise OSError(f"{url} gave {len(content)} bytes with a wrong checksum")
        return bytes(content)

"""The idx files of MNIST and its likes: found or downloaded, and read with care.

Addresses and checksums are torchvision's (``mirrors`` and ``resources`` of its data sets).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from svae.data.download import data_root, download

_IMAGES, _LABELS = 0x0803, 0x0801  # magic numbers: unsigned bytes, in 3 dims and in 1
_STEMS = {"train": "train", "test": "t10k"}


def ensure(kind: str, root: str | Path | None = None, patience: float | None = None) -> Path:
    """The folder with the four files of a set, downloaded where they are missing.

    Args:
        kind: torchvision's name of the set: ``MNIST``, ``FashionMNIST``, ``KMNIST``.
        root: Folder of all data; by default ``$SVAE_DATA``, else ``data``.
        patience: Seconds that a whole download may take; None waits as long as bytes come. Either
            way it is given up within 10 seconds where nothing answers.

    Raises:
        FileNotFoundError: If files are missing and cannot be downloaded.
    """
    folder = data_root(root) / kind / "raw"
    names = [_file(part, what) for part in _STEMS for what in ("images", "labels")]
    missing = [name for name in names if _find(folder, name) is None]
    if not missing:
        return folder
    try:
        _download(kind, missing, folder, patience)
    except OSError as error:
        raise FileNotFoundError(
            f"{kind} is not complete in {folder}: expected {', '.join(missing)} (or .gz), and the "
            f"download failed: {error}. Put the files there, point --data-root or $SVAE_DATA to "
            f"the folder that holds {kind}/raw, or take --dataset digits, which needs no files."
        ) from error
    return folder


def read(folder: Path, part: str) -> tuple[UInt8[Tensor, "n 1 height width"], Int64[Tensor, " n"]]:
    """Images and labels of one part.

    Args:
        folder: Where the files are, see :func:`ensure`.
        part: ``train`` or ``test``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is truncated or otherwise damaged, or labels and images differ in
            number.
    """
    images = _read_idx(folder, _file(part, "images"), _IMAGES)
    labels = _read_idx(folder, _file(part, "labels"), _LABELS)
    if len(images) != len(labels):
        raise ValueError(
            f"{folder} holds {len(images)} images and {len(labels)} labels in its {part} files, "
            "expected one label per image. Delete these files: they are downloaded anew."
        )
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def _file(part: str, what: str) -> str:
    return f"{_STEMS[part]}-{what}-idx{3 if what == 'images' else 1}-ubyte"


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _read_idx(folder: Path, name: str, magic: int) -> np.ndarray:
    path = _find(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder / name} is missing, expected it or {name}.gz there.")
    fix = f"Delete {path}: it is downloaded anew, or copy it again."
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is damaged: expected a complete gzip file, found {len(content)} bytes "
                f"that do not unpack ({error}). {fix}"
            ) from error
    n_dims = magic & 0xFF
    header = 4 + 4 * n_dims
    if len(content) < header:
        raise ValueError(
            f"{path} is truncated: expected a header of {header} bytes, found {len(content)} "
            f"bytes in all. {fix}"
        )
    found, *dims = struct.unpack(f">{1 + n_dims}I", content[:header])
    if found != magic:
        raise ValueError(
            f"{path} is no idx file of {n_dims} dims: expected it to start with 0x{magic:08x}, "
            f"found 0x{found:08x}. {fix}"
        )
    expected = header + math.prod(dims)
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "damaged"
        raise ValueError(
            f"{path} is {state}: expected {expected} bytes for {' x '.join(map(str, dims))} "
            f"values, found {len(content)}. {fix}"
        )
    # A copy, because torch takes no read-only memory.
    return np.frombuffer(content, np.uint8, offset=header).reshape(dims).copy()


def _download(kind: str, names: Sequence[str], folder: Path, patience: float | None) -> None:
    import torchvision

    source = getattr(torchvision.datasets, kind)
    checksums = dict(source.resources)
    files = {f"{name}.gz": checksums[f"{name}.gz"] for name in names}
    download(files, list(source.mirrors), folder, patience)

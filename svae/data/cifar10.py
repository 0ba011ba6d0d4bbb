"""CIFAR-10: 50,000 + 10,000 colour pictures of 32 by 32, ten classes, and no pickles."""

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from svae.data.arrays import ArraySet, Mixture, held_out
from svae.data.download import data_root, download
from svae.data.module import ArrayData

MIRRORS = ["https://www.cs.toronto.edu/~kriz/"]
ARCHIVE = "cifar-10-binary.tar.gz"
CHECKSUM = "c32a1d4ab5d03f1284b67883e8d87530"  # md5, as the authors publish it

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_BATCHES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
_SHEETS = {
    "train": ("cifar10_train_0.webp", "cifar10_train_1.webp"),
    "test": ("cifar10_test.webp",),
}


class CIFAR10(ArrayData):
    """Small colour photographs of ten kinds of things. The test set is the official one.

    Two forms are looked for, in this order, and the first is downloaded (163 MB) where neither is
    found:

    - ``<root>/cifar-10-batches-bin``: the authors' binary files, all 50,000 training pictures.
      Their Python files are pickles, which can run any code, and are not read;
    - ``<root>/cifar10/cifar10_{train_0,train_1,test}.webp``: lossless sheets of pictures side by
      side, row by row, the i-th of class i mod 10. These hold 20,000 of the training pictures.

    The validation set is taken out of the training files, stratified by class and fixed by
    ``seed``; ``limit`` does not change it.

    References:
        Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
        https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf

    Args:
        root: Folder of the data; by default ``$SVAE_DATA``, else ``data``.
        batch_size: Examples per batch and process.
        seed: Split and orders of the training batches.
        n_validation: Number of validation examples.
        limit: Number of training examples, stratified, for quick runs; None takes all.
        augment: What to do to a float batch ``x`` while training, or None.
        mixture: What training batches are made of, such as equally many of each class.

    Raises:
        FileNotFoundError: If files are missing and cannot be downloaded; given up within 10
            seconds where nothing answers.
        ValueError: If a file is damaged, or a number is out of range.

    Example:
        >>> data = svae.data.CIFAR10("data")  # doctest: +SKIP
        >>> data.x_shape, len(data.train), len(data.validation), len(data.test)  # doctest: +SKIP
        ((3, 32, 32), 45000, 5000, 10000)
    """

    def __init__(
        self,
        root: str | Path | None = None,
        batch_size: int = 128,
        seed: int = 0,
        n_validation: int = 5000,
        limit: int | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        whole, test = _read(data_root(root))
        train, validation = held_out(whole, n_validation, seed, limit)
        super().__init__(
            train,
            validation,
            test,
            class_names=(
                *("airplane", "automobile", "bird", "cat", "deer"),
                *("dog", "frog", "horse", "ship", "truck"),
            ),
            name="cifar10",
            batch_size=batch_size,
            seed=seed,
            augment=augment,
            mixture=mixture,
        )


def _read(root: Path) -> tuple[ArraySet, ArraySet]:
    batches, sheets = root / "cifar-10-batches-bin", root / "cifar10"
    if not _missing(batches, _BATCHES):
        return _parts(batches, _BATCHES, _read_batch)
    if not _missing(sheets, _SHEETS):
        return _parts(sheets, _SHEETS, _read_sheet)
    try:
        if not (root / ARCHIVE).is_file():
            download({ARCHIVE: CHECKSUM}, MIRRORS, root)
    except OSError as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not complete in {root}: {batches} lacks "
            f"{', '.join(_missing(batches, _BATCHES))} and {sheets} lacks "
            f"{', '.join(_missing(sheets, _SHEETS))}; the download failed: {error}. Put "
            f"{ARCHIVE} from {MIRRORS[0]} into {root}, or point $SVAE_DATA to the folder that "
            "holds either."
        ) from error
    _unpack(root / ARCHIVE, batches)
    return _parts(batches, _BATCHES, _read_batch)


def _missing(folder: Path, files: dict[str, tuple[str, ...]]) -> list[str]:
    return [name for part in files.values() for name in part if not (folder / name).is_file()]


def _unpack(archive: Path, folder: Path) -> None:
    """Takes the files that we read out of the archive, and no path that it names."""
    names = [name for part in _BATCHES.values() for name in part]
    try:
        with tarfile.open(archive) as tar:
            files = {Path(member.name).name: member for member in tar if member.isfile()}
            absent = [name for name in names if name not in files]
            if absent:
                raise ValueError(f"it lacks {', '.join(absent)}")
            contents = {}
            for name in names:
                stream = tar.extractfile(files[name])
                assert stream is not None  # a regular file has one
                contents[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{archive} is damaged: expected the complete archive of the binary version "
            f"({error}). Delete {archive}: it is downloaded anew."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        # Whole or not at all, also when several processes unpack at once.
        partial = folder / f"{name}.{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(folder / name)


_Arrays = tuple[np.ndarray, np.ndarray]


def _parts(
    folder: Path, files: dict[str, tuple[str, ...]], read: Callable[[Path], _Arrays]
) -> tuple[ArraySet, ArraySet]:
    train, test = (_joined([read(folder / name) for name in part]) for part in files.values())
    return train, test


def _joined(parts: Sequence[_Arrays]) -> ArraySet:
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArraySet(torch.from_numpy(x), torch.from_numpy(y))


def _read_batch(path: Path) -> _Arrays:
    """Records of one byte of label, then red, green and blue, each row by row."""
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % (1 + _PIXELS):
        raise ValueError(
            f"{path} is damaged: expected whole records of {1 + _PIXELS} bytes, found "
            f"{len(content)} bytes. Delete {path}: it is unpacked or downloaded anew."
        )
    records = content.reshape(-1, 1 + _PIXELS)
    y = records[:, 0].astype(np.int64)
    if y.max() > 9:
        raise ValueError(
            f"{path} is damaged: expected labels in 0..9, found {y.max()} in record "
            f"{int((y > 9).argmax())}. Delete {path}: it is unpacked or downloaded anew."
        )
    return records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).copy(), y


def _read_sheet(path: Path) -> _Arrays:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            sheet = np.asarray(image)
    except (OSError, SyntaxError) as error:  # Pillow raises both for damaged files
        raise ValueError(
            f"{path} is damaged: expected a picture that Pillow can decode ({error}). "
            "Copy it again."
        ) from error
    if sheet.ndim != 3 or sheet.shape[2] != 3 or sheet.shape[0] % _SIDE or sheet.shape[1] % _SIDE:
        raise ValueError(
            f"{path} has shape {sheet.shape}, expected (height, width, 3) with both multiples of "
            f"{_SIDE}: pictures of {_SIDE} by {_SIDE} side by side. Copy it again."
        )
    rows, columns = sheet.shape[0] // _SIDE, sheet.shape[1] // _SIDE
    grid = sheet.reshape(rows, _SIDE, columns, _SIDE, 3).transpose(0, 2, 4, 1, 3)
    x = np.ascontiguousarray(grid.reshape(-1, 3, _SIDE, _SIDE))
    return x, np.arange(len(x)) % 10

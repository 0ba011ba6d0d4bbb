"""dSprites: white shapes on black, of which every factor is known."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from svae.data.arrays import ArraySet, Mixture, held_out
from svae.data.download import data_root
from svae.data.module import ArrayData

SOURCE = "https://github.com/google-deepmind/dsprites-dataset"
_FILES = ("dsprites_downsampled.npz", "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz")


class DSprites(ArrayData):
    """Squares, ellipses and hearts of 64 by 64, in every size, orientation and place.

    The class is the shape; ``factors`` are scale in [.5, 1], orientation in radians, and position
    in [0, 1]. Looked for in ``<root>/dsprites`` and ``<root>``: the authors' file of all 737,280
    pictures, or ``dsprites_downsampled.npz``, every combination of a coarser grid. Which pictures
    are held out, for validation and for the test, is fixed by ``seed`` and stratified by shape.

    References:
        dSprites: Disentanglement testing Sprites dataset (Matthey et al., 2017),
        https://github.com/google-deepmind/dsprites-dataset

    Args:
        root: Folder of the data; by default ``$SVAE_DATA``, else ``data``.
        batch_size: Examples per batch and process.
        seed: Splits and orders of the training batches.
        n_validation: Number of validation examples.
        n_test: Number of test examples.
        limit: Number of training examples, stratified, for quick runs; None takes all.
        augment: What to do to a float batch ``x`` while training, or None.
        mixture: What training batches are made of, such as equally many of each class.

    Raises:
        FileNotFoundError: If neither file is there.
        ValueError: If a file is damaged, or a number is out of range.

    Example:
        >>> data = svae.data.DSprites("data")  # doctest: +SKIP
        >>> data.x_shape, data.class_names, data.factor_names  # doctest: +SKIP
        ((1, 64, 64), ('square', 'ellipse', 'heart'), ('scale', 'orientation', 'x', 'y'))
    """

    factor_names = ("scale", "orientation", "x", "y")

    def __init__(
        self,
        root: str | Path | None = None,
        batch_size: int = 128,
        seed: int = 0,
        n_validation: int = 2000,
        n_test: int = 5000,
        limit: int | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        rest, test = held_out(_read(_found(data_root(root))), n_test, seed)
        train, validation = held_out(rest, n_validation, seed, limit)
        super().__init__(
            train,
            validation,
            test,
            class_names=("square", "ellipse", "heart"),
            name="dsprites",
            batch_size=batch_size,
            seed=seed,
            augment=augment,
            mixture=mixture,
        )


def _found(root: Path) -> Path:
    places = [folder / name for folder in (root / "dsprites", root) for name in _FILES]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"dSprites is not in {root}: none of {', '.join(map(str, places))} is there. Put "
        f"{_FILES[1]} from {SOURCE} there, or point $SVAE_DATA to the folder that holds it."
    )


def _read(path: Path) -> ArraySet:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            pictures, classes = file["imgs"], file["latents_classes"]
            values = file["latents_values"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged: expected an npz file with imgs, latents_classes and "
            f"latents_values ({error}). Copy it again."
        ) from error
    n, shape = len(pictures), pictures.shape[1:]
    if shape != (64, 64) or len(classes) != n or len(values) != n or pictures.max(initial=0) > 1:
        raise ValueError(
            f"{path} holds pictures of shape {shape} with values up to "
            f"{pictures.max(initial=0)} and {len(classes)} rows of factors for {n} of them, "
            "expected 64 by 64, 0 and 1, and as many rows. Copy it again."
        )
    # The authors' file has the colour, which is always white, as its first column.
    shapes = torch.from_numpy(classes[:, -5].astype(np.int64))
    factors = torch.from_numpy(values[:, -4:].astype(np.float32))
    return ArraySet(torch.from_numpy(pictures[:, None] * np.uint8(255)), shapes, factors)

"""scikit-learn's handwritten digits: 1797 of them, 8 by 8, embedded in the library."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from svae.data.arrays import ArraySet, Mixture, stratified_order
from svae.data.module import ArrayData


class Digits(ArrayData):
    """Handwritten digits that need no download: 1200 to train, 200 to validate, 397 to test.

    The split is stratified by class and fixed by ``seed``. Grey levels 0..16 are held as bytes.

    References:
        Combining Multiple Classifiers and Their Application to Handwritten Digits Recognition
        (Kaynak, 1995), https://archive.ics.uci.edu/dataset/80

    Args:
        batch_size: Examples per batch and process.
        seed: Split and orders of the training batches.
        augment: What to do to a float batch ``x`` while training, or None.
        mixture: What training batches are made of, such as equally many of each class.
        binarise: Whether pixels are drawn as 0 or 1, see :class:`svae.data.ArrayData`.

    Example:
        >>> data = svae.data.Digits()
        >>> data.x_shape, len(data.train), len(data.validation), len(data.test)
        ((1, 8, 8), 1200, 200, 397)
    """

    def __init__(
        self,
        batch_size: int = 128,
        seed: int = 0,
        augment: Callable[[Tensor], Tensor] | None = None,
        mixture: Mixture | None = None,
        binarise: bool = False,
    ) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        whole = ArraySet(torch.from_numpy(pixels), torch.from_numpy(labels))
        order = stratified_order(torch.from_numpy(labels), seed)
        train, validation, test = order.split([1200, 200, len(order) - 1400])
        super().__init__(
            whole.subset(train),
            whole.subset(validation),
            whole.subset(test),
            class_names=tuple(map(str, range(10))),
            name="digits",
            batch_size=batch_size,
            seed=seed,
            augment=augment,
            mixture=mixture,
            binarise=binarise,
        )

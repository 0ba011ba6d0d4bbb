"""MNIST and two sets of its form: 60,000 + 10,000 grey images of 28 by 28, ten classes."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from svae.data.arrays import ArraySet, Mixture, held_out
from svae.data.idx import ensure, read
from svae.data.module import ArrayData


class _IdxData(ArrayData):
    """Four idx files; the validation set is taken out of the training files."""

    kind: ClassVar[str]  # torchvision's name of the set, and of its folder
    title: ClassVar[str]  # ours, as metrics give it
    classes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        root: str | Path | None = None,
        batch_size: int = 128,
        seed: int = 0,
        n_validation: int = 5000,
        limit: int | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        mixture: Mixture | None = None,
        binarise: bool = False,
    ) -> None:
        folder = ensure(self.kind, root)
        train, validation = held_out(ArraySet(*read(folder, "train")), n_validation, seed, limit)
        super().__init__(
            train,
            validation,
            ArraySet(*read(folder, "test")),
            class_names=self.classes,
            name=self.title,
            batch_size=batch_size,
            seed=seed,
            augment=augment,
            mixture=mixture,
            binarise=binarise,
        )


class MNIST(_IdxData):
    """Handwritten digits. The test set is the official one.

    The files are looked for in ``<root>/MNIST/raw`` (torchvision's layout, unpacked or ``.gz``),
    then downloaded into it. The validation set is taken out of the training files, stratified by
    class and fixed by ``seed``; ``limit`` does not change it.

    References:
        Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998),
        http://yann.lecun.com/exdb/publis/pdf/lecun-01a.pdf

    Args:
        root: Folder of the data; by default ``$SVAE_DATA``, else ``data``.
        batch_size: Examples per batch and process.
        seed: Split and orders of the training batches.
        n_validation: Number of validation examples.
        limit: Number of training examples, stratified, for quick runs; None takes all.
        augment: What to do to a float batch ``x`` while training, or None.
        mixture: What training batches are made of, such as equally many of each class.
        binarise: Whether pixels are drawn as 0 or 1, see :class:`svae.data.ArrayData`.

    Raises:
        FileNotFoundError: If files are missing and cannot be downloaded; given up within 10
            seconds where nothing answers.
        ValueError: If a file is damaged, or a number is out of range.

    Example:
        >>> data = svae.data.MNIST("data")  # doctest: +SKIP
        >>> data.x_shape, len(data.train), len(data.validation), len(data.test)  # doctest: +SKIP
        ((1, 28, 28), 55000, 5000, 10000)
    """

    kind = "MNIST"
    title = "mnist"
    classes = tuple(map(str, range(10)))


class FashionMNIST(_IdxData):
    """Pictures of clothes. Arguments, split and errors are those of :class:`MNIST`.

    References:
        Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao et
        al., 2017), https://arxiv.org/abs/1708.07747
    """

    kind = "FashionMNIST"
    title = "fashion"
    classes = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


class KMNIST(_IdxData):
    """Cursive Japanese characters. Arguments, split and errors are those of :class:`MNIST`.

    References:
        Deep Learning for Classical Japanese Literature (Clanuwat et al., 2018),
        https://arxiv.org/abs/1812.01718
    """

    kind = "KMNIST"
    title = "kmnist"
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

"""The data module that everything trains and measures on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed
from pytorch_lightning import LightningDataModule
from torch import Tensor

from svae.data.arrays import ArraySet, BatchLoader, Mixture
from svae.data.batch import Batch, as_floats
from svae.data.check import check_splits

SHARE_OF_MEMORY = 0.25  # of what an accelerator has free, that a set may take


class ArrayData(LightningDataModule):
    """Three sets in memory, checked, and their batches.

    Bytes stay bytes until a batch has reached its device: :meth:`on_after_batch_transfer` turns
    them into floats in [0, 1] there, and augments them while training.

    Training batches come in a new order every epoch, a pure function of ``seed`` and the epoch,
    and all have the same size (one shape, one compiled graph): an incomplete last batch is left
    out, of which the next epochs see other examples. Validation and test leave nothing out.

    Args:
        train: Training examples, every class among them.
        validation: Examples to choose settings and checkpoints by.
        test: Examples for the final numbers only.
        class_names: One name per class; their number is K.
        name: Name of the set, as metrics and reports give it.
        batch_size: Examples per batch and process.
        seed: Orders of the training batches; sets that are split here, are split by it too.
        augment: What to do to a float batch ``x`` while training, or None.
        mixture: What training batches are made of, such as equally many of each class.
        binarise: Whether pixels are drawn as 0 or 1 with their grey level as probability: anew for
            every training batch, once for validation and test.
        bounded: Whether floats must lie in [0, 1], or only be finite, as rows of a table.

    Attributes:
        factor_names: What the columns of the sets' factors are called; empty where nobody said.

    Raises:
        TypeError: If pixels or labels are of a wrong dtype.
        ValueError: If a set is empty or breaks a rule of :mod:`svae.data.check`.

    Example:
        >>> x, y = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
        >>> part = svae.data.ArraySet(x, y)
        >>> data = svae.data.ArrayData(part, part, part, class_names=("a", "b", "c"), batch_size=8)
        >>> data.x_shape, data.n_classes, len(data.train_dataloader()), len(data.val_dataloader())
        ((1, 8, 8), 3, 3, 4)
    """

    factor_names: tuple[str, ...] = ()

    def __init__(
        self,
        train: ArraySet,
        validation: ArraySet,
        test: ArraySet,
        class_names: tuple[str, ...],
        name: str = "arrays",
        batch_size: int = 128,
        seed: int = 0,
        augment: Callable[[Tensor], Tensor] | None = None,
        mixture: Mixture | None = None,
        binarise: bool = False,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1. The usual is 128.")
        check_splits(train, validation, test, len(class_names), bounded)
        self.bounded = bounded
        self.train, self.validation, self.test = train, validation, test
        self.class_names = tuple(class_names)
        self.name = name
        self.batch_size = batch_size
        self.seed = seed
        self.augment, self.mixture = augment, mixture
        self._moved: dict[str, ArraySet] = {}
        self.binarise = False
        if binarise:
            self.draw_binary()

    def _near(self, name: str) -> ArraySet:
        """A set where it is used: on the trainer's accelerator if it fits there easily."""
        part = getattr(self, name)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device.type != "cuda":
            return part
        held = self._moved.get(name)
        if held is None or held.x.device != device:
            free, _ = torch.cuda.mem_get_info(device)
            if part.n_bytes > SHARE_OF_MEMORY * free:
                return part
            held = self._moved[name] = part.to(device)
        return held

    def draw_binary(self) -> None:
        """Draws pixels as 0 or 1, see ``binarise``; validation and test are replaced by draws."""
        generator = torch.Generator().manual_seed(self.seed)
        for name in ("validation", "test"):
            part = getattr(self, name)
            drawn = torch.rand(part.x.shape, generator=generator) < part.floats()
            x = drawn.to(torch.uint8) * 255
            setattr(self, name, ArraySet(x, part.y, part.factors))
        self.binarise = True
        self._moved.clear()

    @contextmanager
    def batches_of(self, size: int) -> Iterator[None]:
        """Batches of that many examples, for as long as the context lasts."""
        usual, self.batch_size = self.batch_size, size
        try:
            yield
        finally:
            self.batch_size = usual

    def keep_labels(self, n: int) -> None:
        """Forgets all training labels but ``n``, stratified by class, and those of validation.

        So ``n`` is all that training and the choice of a checkpoint know; test labels stay.

        Raises:
            ValueError: If there are fewer labels, or a class would have none.
        """
        train = self.train.with_few_labels(n, self.seed)
        validation = self.validation.with_few_labels(0)
        check_splits(train, validation, self.test, self.n_classes, self.bounded)
        self.train, self.validation = train, validation
        self._moved.clear()

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, height, width) or (features,)."""
        return self.train.shape

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches, all of one size unless the set is smaller than one batch."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world_size = torch.distributed.get_world_size() if distributed else 1
        return BatchLoader(
            self._near("train"),
            self.batch_size,
            shuffle=True,
            seed=self.seed,
            drop_last=len(self.train) >= self.batch_size * world_size,
            mixture=self.mixture,
        )

    def val_dataloader(self) -> BatchLoader:
        """Every validation example, in a fixed order."""
        return BatchLoader(self._near("validation"), self.batch_size)

    def test_dataloader(self) -> BatchLoader:
        """Every test example, in a fixed order."""
        return BatchLoader(self.test, self.batch_size)

    def on_after_batch_transfer(
        self,
        batch: Sequence[Tensor | None],
        dataloader_idx: int = 0,
    ) -> Batch:
        """A :class:`Batch` of floats in [0, 1], augmented while training.

        Args:
            batch: A :class:`Batch`, or ``(x, y)`` as a tuple or list, on its device.
            dataloader_idx: Which of several loaders it came from; we have one.

        Raises:
            TypeError: If pixels are neither uint8 nor floats.
        """
        x, *rest = batch
        if not isinstance(x, Tensor):
            raise TypeError(f"x of the batch is a {type(x).__name__}, expected a tensor (x, y).")
        x = as_floats(x)
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            x = self.augment(x)
        if self.binarise and self.trainer is not None and self.trainer.training:
            x = torch.bernoulli(x.clamp(0, 1))
        return Batch(x, *rest)

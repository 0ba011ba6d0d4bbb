"""From what users have (tensors, a Dataset, a data module) to the one form that we work with."""

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from svae.data.arrays import ArraySet, stratified_order
from svae.data.batch import as_floats
from svae.data.check import check_images, check_labels
from svae.data.module import ArrayData

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

_KINDS = (
    "expected a tuple (x, y) of tensors or arrays, a torch Dataset of (x, y), a "
    "LightningDataModule yielding (x, y), or one of svae.data's sets"
)


def as_data(
    data: object, batch_size: int = 128, seed: int = 0, n_classes: int | None = None
) -> ArrayData:
    """Reads labelled examples of any usual form into memory and checks them.

    What comes without a split is split 80 / 10 / 10 into training, validation and test,
    stratified by class, fixed by ``seed``; a data module keeps the splits it has, and what it
    lacks is taken out of its training set. Floats that are exact multiples of 1/255 are held as
    bytes. A Dataset is read once, so a random transform in it is applied once: give ours as
    ``augment``. Batches of a data module are taken as its loaders give them.

    Args:
        data: A tuple ``(x, y)``, a torch ``Dataset`` of ``(x, y)``, a ``LightningDataModule``
            yielding ``(x, y)``, or an :class:`ArrayData`, which comes back as it is.
        batch_size: Examples per batch and process.
        seed: Split and orders.
        n_classes: Number of classes K; by default the highest training label and one.

    Raises:
        TypeError: If ``data`` is of another kind, or pixels or labels of a wrong dtype.
        ValueError: If the examples break a rule of :mod:`svae.data.check`.

    Example:
        >>> x, y = torch.rand(100, 1, 8, 8), torch.arange(100) % 4
        >>> data = svae.data.as_data((x, y))
        >>> len(data.train), len(data.validation), len(data.test), data.n_classes
        (80, 10, 10, 4)
    """
    if isinstance(data, ArrayData):
        return data
    if n_classes is not None and n_classes < 1:
        raise ValueError(f"n_classes is {n_classes}, expected at least 1, or None to count them.")
    train, validation, test = _read(data)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if part is not None:
            prefix = "" if validation is None and test is None else f"{name} "
            shape = None if part is train else tuple(train[0].shape[1:])
            check_images(part[0], f"{prefix}x", shape)
            check_labels(part[1], len(part[0]), n_classes, f"{prefix}y")
    soft = train[1].ndim == 2
    classes = n_classes or (train[1].shape[1] if soft else int(train[1].max()) + 1)
    sets = _split(train, validation, test, seed)
    return ArrayData(*sets, tuple(map(str, range(classes))), batch_size=batch_size, seed=seed)


_Pair = tuple[Tensor, Tensor]


def _read(data: object) -> tuple[_Pair, _Pair | None, _Pair | None]:
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise TypeError(f"data is a {type(data).__name__} of {len(data)}; {_KINDS}.")
        return (_tensor(data[0], "x"), _tensor(data[1], "y")), None, None
    if isinstance(data, Dataset):
        return _read_dataset(data), None, None
    if _is_data_module(data):
        return _read_module(data)
    if isinstance(data, DataLoader):
        raise TypeError(f"data is a DataLoader; {_KINDS}. Give its dataset: loader.dataset.")
    raise TypeError(f"data is a {type(data).__name__}; {_KINDS}.")


def _tensor(values: object, name: str) -> Tensor:
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "buif":
            raise TypeError(
                f"{name} is an array of dtype {values.dtype}, expected numbers. "
                "Number the classes from 0: np.unique(y, return_inverse=True)[1]."
            )
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name} is a {type(values).__name__}, expected a torch tensor or a numpy array. "
            "Convert a list with np.asarray."
        )
    return values.detach().cpu()


def _read_dataset(dataset: Dataset[Any]) -> _Pair:
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"data is a {type(dataset).__name__}, an IterableDataset; {_KINDS}. "
            "Collect its examples into tensors."
        )
    if isinstance(dataset, ArraySet):
        if dataset.y is None:
            raise ValueError("the ArraySet has no labels, expected ArraySet(x, y).")
        return dataset.x, dataset.y
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) >= 2:
        return dataset.tensors[0].detach().cpu(), dataset.tensors[1].detach().cpu()
    return _read_loader(DataLoader(dataset, batch_size=256))


def _read_loader(loader: Any) -> _Pair:
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, RandomSampler):
        # In the order of the dataset, complete: the content must not depend on a random state.
        loader = DataLoader(loader.dataset, batch_size=256, collate_fn=loader.collate_fn)
    xs, ys = [], []
    try:
        for batch in loader:
            if not isinstance(batch, tuple | list) or len(batch) < 2:
                raise TypeError(f"an example is a {type(batch).__name__}")
            xs.append(_tensor(batch[0], "x"))
            ys.append(_tensor(batch[1], "y"))
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"the dataset could not be read as batches of (x, y): {error}. Expected every example "
            "as (x, y), x a tensor of one shape in [0, 1], y an integer. For PIL images use "
            "transform=torchvision.transforms.ToTensor()."
        ) from error
    if not xs:
        raise ValueError("the dataset is empty, expected at least one example (x, y).")
    return torch.cat(xs), torch.cat(ys)


def _is_data_module(data: object) -> TypeGuard["LightningDataModule"]:
    from pytorch_lightning import LightningDataModule

    return isinstance(data, LightningDataModule)


def _read_module(module: "LightningDataModule") -> tuple[_Pair, _Pair | None, _Pair | None]:
    from pytorch_lightning import LightningDataModule

    module.prepare_data()
    module.setup("fit")

    def loader(name: str) -> object:
        method = getattr(module, name)
        # Lightning's own raises where the user has written none.
        if getattr(method, "__func__", method) is getattr(LightningDataModule, name):
            return None
        return method()

    train, validation = loader("train_dataloader"), loader("val_dataloader")
    module.setup("test")
    test = loader("test_dataloader")
    if train is None:
        raise TypeError(
            f"{type(module).__name__} has no train_dataloader, expected one that yields (x, y)."
        )
    return (
        _read_loader(train),
        None if validation is None else _read_loader(validation),
        None if test is None else _read_loader(test),
    )


def _split(
    train: _Pair, validation: _Pair | None, test: _Pair | None, seed: int
) -> tuple[ArraySet, ArraySet, ArraySet]:
    whole = _compact(train)
    n_part = max(1, round(len(whole) / 10))
    n_taken = n_part * ((validation is None) + (test is None))
    if n_taken >= len(whole):
        raise ValueError(
            f"{len(whole)} examples are too few to split into training, validation and test; "
            "expected at least 3. Give more, or an ArrayData of three sets."
        )
    order = stratified_order(whole.marked, seed)
    parts = iter(order[:n_taken].split(n_part))
    held = [whole.subset(next(parts)) if p is None else _compact(p) for p in (validation, test)]
    return whole.subset(order[n_taken:]), held[0], held[1]


def _compact(pair: _Pair) -> ArraySet:
    x, y = pair
    if x.dtype != torch.uint8:
        x = x.float()
        pixels = (x * 255).round().to(torch.uint8)
        x = pixels if torch.equal(as_floats(pixels), x) else x
    return ArraySet(x, y)

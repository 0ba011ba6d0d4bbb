from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from svae.data import ArraySet, Batch, Digits, as_data

N = 60
BYTES = torch.randint(0, 256, (N, 1, 8, 8), dtype=torch.uint8)
X = BYTES / 255
Y = torch.arange(N) % 3


class Pairs(Dataset[Any]):
    def __init__(self, x: Tensor = X, y: Tensor = Y) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.y[index])


class Module(LightningDataModule):
    """Twenty examples each, train shuffled; set up late, as Lightning does."""

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.fit_set, self.val_set = Pairs(X[:20], Y[:20]), Pairs(X[20:40], Y[20:40])
        else:
            self.test_set = Pairs(X[40:], Y[40:])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.fit_set, batch_size=7, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val_set, batch_size=7)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test_set, batch_size=7)


class OnlyTrain(LightningDataModule):
    def train_dataloader(self) -> list[tuple[Tensor, Tensor]]:
        return [(X[:30], Y[:30]), (X[30:], Y[30:])]


SOURCES = {
    "tensors": (X, Y),
    "float64": (X.double(), Y.int()),
    "list": [X, Y],
    "bytes": (BYTES, Y),
    "numpy": (X.numpy(), Y.numpy()),
    "numpy bytes": (BYTES.numpy(), Y.numpy().astype(np.uint8)),
    "dataset": Pairs(),
    "tensor dataset": TensorDataset(X, Y),
    "array set": ArraySet(BYTES, Y),
    "module": OnlyTrain(),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same_data(source: object) -> None:
    data, expected = as_data(source, seed=2), as_data((X, Y), seed=2)
    assert (data.x_shape, data.n_classes, data.class_names) == ((1, 8, 8), 3, ("0", "1", "2"))
    for name, n in (("train", 48), ("validation", 6), ("test", 6)):
        part, other = getattr(data, name), getattr(expected, name)
        assert len(part) == n
        assert torch.equal(part.x, other.x)
        assert torch.equal(part.y, other.y)
        assert part.x.dtype == torch.uint8  # multiples of 1/255: held as bytes, without loss
        assert torch.equal(part.y.bincount(), torch.full((3,), n // 3))
    found = torch.cat([data.train.x, data.validation.x, data.test.x]).flatten(1)
    assert sorted(found.tolist()) == sorted(BYTES.flatten(1).tolist())
    labels = {tuple(x.flatten().tolist()): int(y) for x, y in zip(BYTES, Y, strict=True)}
    assert data.train.y is not None
    for x, y in zip(data.train.x, data.train.y, strict=True):
        assert labels[tuple(x.flatten().tolist())] == y


def test_other_floats_stay_floats() -> None:
    data = as_data((X * 0.99, Y))
    assert data.train.x.dtype == torch.float32
    assert data.train.floats().max() <= 0.99


def test_module_keeps_its_splits() -> None:
    torch.manual_seed(0)
    data = as_data(Module(), batch_size=5)
    torch.manual_seed(1)
    again = as_data(Module(), batch_size=5)
    # complete, though its loader drops the last batch, and in an order without chance
    assert len(data.train) == 20
    assert torch.equal(data.train.x, again.train.x)
    assert sorted(data.train.x.flatten(1).tolist()) == sorted(BYTES[:20].flatten(1).tolist())
    assert torch.equal(data.validation.x, BYTES[20:40])
    assert torch.equal(data.test.x, BYTES[40:])
    assert data.batch_size == 5


def test_our_own_comes_back_as_it_is() -> None:
    data = Digits()
    assert as_data(data) is data


def test_transfer_makes_batches_of_pairs() -> None:
    data = as_data((X, Y))
    for pair in ((BYTES[:4], Y[:4]), [X[:4], Y[:4]], Batch(BYTES[:4], Y[:4])):
        batch = data.on_after_batch_transfer(pair, 0)
        assert isinstance(batch, Batch)
        assert torch.equal(batch.x, X[:4])
        assert torch.equal(batch.y, Y[:4]) if batch.y is not None else False
        assert batch.factors is None
    with pytest.raises(TypeError, match=r"torch\.int64, expected uint8"):
        data.on_after_batch_transfer((BYTES[:4].long(), Y[:4]), 0)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Pairs())


class Dicts(Pairs):
    def __getitem__(self, index: int) -> Any:
        return {"x": self.x[index]}


class Ragged(Pairs):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(1, 8, 8 + index), 0


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("MNIST", TypeError, "data is a str; expected a tuple .x, y."),
        ((X, Y, Y), TypeError, "data is a tuple of 3; expected a tuple"),
        ((X.tolist(), Y), TypeError, "x is a list, expected a torch tensor.*np.asarray"),
        (DataLoader(Pairs()), TypeError, "data is a DataLoader.*loader.dataset"),
        (Stream(), TypeError, "IterableDataset.*Collect"),
        (Dicts(), TypeError, "an example is a dict.*Expected every example as"),
        (Ragged(), TypeError, "could not be read as batches.*ToTensor"),
        (ArraySet(X), ValueError, "the ArraySet has no labels"),
        (Pairs(X[:0], Y[:0]), ValueError, "dataset is empty"),
        (LightningDataModule(), TypeError, "has no train_dataloader"),
        ((X[:2], Y[:2]), ValueError, "2 examples are too few to split.*at least 3"),
    ],
)
def test_other_sources(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_data(source)


def test_splits_of_different_sizes() -> None:
    class Mixed(Module):
        def test_dataloader(self) -> Any:
            return [(X[..., :7], Y)]

    with pytest.raises(ValueError, match=r"test x has .*\(1, 8, 7\), expected \(1, 8, 8\)"):
        as_data(Mixed())


def test_number_of_classes() -> None:
    with pytest.raises(ValueError, match="n_classes is 0, expected at least 1"):
        as_data((X, Y), n_classes=0)
    assert as_data((X, Y), n_classes=3).n_classes == 3

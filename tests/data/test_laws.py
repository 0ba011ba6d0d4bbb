"""What holds for every data set: a new one adds its line to CASES."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from svae.data import (
    CIFAR10,
    KMNIST,
    MNIST,
    ArrayData,
    ArraySet,
    Batch,
    BatchLoader,
    ColouredDigits,
    Digits,
    FashionMNIST,
    ImageFolder,
    as_data,
    choose,
)

N = 200
X = torch.randint(
    0, 256, (N, 3, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
Y = torch.arange(N) % 5

# name → (root, seed) → data
CASES: dict[str, Callable[[Path, int], ArrayData]] = {
    "digits": lambda root, seed: Digits(batch_size=32, seed=seed),
    "mnist": lambda root, seed: MNIST(root, batch_size=32, seed=seed, n_validation=50),
    "fashion": lambda root, seed: FashionMNIST(root, batch_size=32, seed=seed, n_validation=50),
    "kmnist": lambda root, seed: KMNIST(root, batch_size=32, seed=seed, n_validation=50),
    "cifar10": lambda root, seed: CIFAR10(root, batch_size=32, seed=seed, n_validation=50),
    "cifar10 sheets": lambda root, seed: CIFAR10(root / "sheets", 32, seed, n_validation=50),
    "limited": lambda root, seed: MNIST(root, 32, seed, n_validation=50, limit=40),
    "chosen": lambda root, seed: choose("digits", root, batch_size=32, seed=seed),
    "coloured": lambda root, seed: ColouredDigits(Digits(32, seed), seed=seed),
    "folder": lambda root, seed: ImageFolder(root / "images", size=8, batch_size=32, seed=seed),
    "bytes": lambda root, seed: as_data((X, Y), batch_size=32, seed=seed),
    "floats": lambda root, seed: as_data((X.double() / 256, Y), batch_size=32, seed=seed),
    "vectors": lambda root, seed: as_data((X.flatten(1).numpy(), Y.numpy()), 32, seed),
}
SPLITS = ("train", "validation", "test")


@pytest.fixture(params=CASES)
def make(request: pytest.FixtureRequest, set_root: Path) -> Callable[[int], ArrayData]:
    return lambda seed: CASES[request.param](set_root, seed)


def rows(part: ArraySet) -> list[tuple[int, bytes]]:
    """Examples that can be sorted and compared."""
    assert part.y is not None
    return [(int(y), x.numpy().tobytes()) for x, y in zip(part.x, part.y, strict=True)]


def same(a: ArraySet, b: ArraySet) -> bool:
    return rows(a) == rows(b)


def test_every_batch_is_floats_in_the_unit_range_and_labels(
    make: Callable[[int], ArrayData],
) -> None:
    data = make(0)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader, BatchLoader)
        for stored in loader:
            batch = data.on_after_batch_transfer(stored, 0)
            assert isinstance(batch, Batch)
            assert batch.x.dtype == torch.float32
            assert batch.x.shape[1:] == data.x_shape
            assert batch.x.min() >= 0
            assert 0.5 < batch.x.max() <= 1
            assert batch.y is not None
            assert batch.y.dtype == torch.int64
            assert batch.y.min() >= 0
            assert batch.y.max() < data.n_classes


def test_loaders_give_every_example_once(make: Callable[[int], ArrayData]) -> None:
    data = make(0)
    for part, loader in (
        (data.validation, data.val_dataloader()),
        (data.test, data.test_dataloader()),
    ):
        batches = list(loader)
        assert len(batches) == len(loader)
        assert torch.equal(torch.cat([batch.x for batch in batches]), part.x)
    train = ArraySet(*(torch.cat(v) for v in zip(*(b[:2] for b in data.train_dataloader()))))  # noqa: B905
    assert len(train) == len(data.train) // 32 * 32
    assert not set(rows(train)) - set(rows(data.train))
    n_distinct = len(set(rows(data.train)))
    assert len(set(rows(train))) > n_distinct - 32


def test_same_seed_same_split_and_other_seed_another(make: Callable[[int], ArrayData]) -> None:
    first, again, other = make(0), make(0), make(1)
    assert all(same(getattr(first, name), getattr(again, name)) for name in SPLITS)
    assert not same(first.train, other.train)
    assert not same(first.validation, other.validation)
    assert sorted(rows(first.train)) != sorted(rows(other.train))
    orders = [[b.y.tolist() for b in d.train_dataloader()] for d in (first, again, other)]  # type: ignore[union-attr]
    assert orders[0] == orders[1] != orders[2]
    assert (first.seed, other.seed) == (0, 1)


def test_class_shares_are_kept_and_no_class_is_missing(make: Callable[[int], ArrayData]) -> None:
    data = make(3)
    assert len(data.class_names) == data.n_classes
    for name in SPLITS:
        y = getattr(data, name).y
        shares = torch.bincount(y, minlength=data.n_classes) / len(y)
        assert shares.min() > 0
        # the sets of this list are balanced, or nearly
        assert (shares * data.n_classes - 1).abs().max() < 0.35


def test_images_are_held_as_bytes_where_they_can_be(make: Callable[[int], ArrayData]) -> None:
    data = make(0)
    assert {getattr(data, name).x.dtype for name in SPLITS} <= {torch.uint8, torch.float32}
    x = data.train.x
    if x.dtype == torch.float32:  # the one case whose values are no multiples of 1/255
        assert not torch.equal((x * 255).round() / 255, x)
    assert torch.equal(data.train.floats(7), data.on_after_batch_transfer((x[:7],), 0).x)


@pytest.mark.parametrize("name", ["digits", "bytes", "floats", "vectors"])
def test_splits_together_are_the_source_once(name: str, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data = CASES[name](tmp_path, 0)
    found = torch.cat([getattr(data, part).floats().flatten(1) for part in SPLITS])
    images = load_digits(return_X_y=True)[0] / 16
    expected = {"digits": images, "floats": X.flatten(1) / 256}.get(name, X.flatten(1) / 255)
    totals = [
        np.sort(np.asarray(x, np.float64) @ np.arange(x.shape[1])) for x in (found, expected)
    ]
    assert totals[0] == pytest.approx(totals[1], rel=2e-3 if name == "digits" else 1e-5)


def test_mnist_takes_validation_out_of_train_and_leaves_test_alone(idx_root: Path) -> None:
    data, other = (MNIST(idx_root, seed=seed, n_validation=50) for seed in (0, 1))
    assert data.name == "mnist"
    assert (len(data.train), len(data.validation), len(data.test)) == (250, 50, 50)
    assert not set(rows(data.train)) & set(rows(data.validation))
    assert same(data.test, other.test)
    raw = (idx_root / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:]
    assert data.test.x.numpy().tobytes() == raw
    limited = MNIST(idx_root, n_validation=50, limit=40)
    assert same(limited.validation, data.validation)
    assert set(rows(limited.train)) < set(rows(data.train))


@pytest.mark.data
def test_real_mnist_has_its_published_label_counts(data_root: Path) -> None:
    data = MNIST(data_root)
    assert data.x_shape == (1, 28, 28)
    assert (len(data.train), len(data.validation), len(data.test)) == (55000, 5000, 10000)
    assert data.test.y is not None
    assert torch.bincount(data.test.y).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert data.train.y is not None
    assert data.validation.y is not None
    assert torch.bincount(torch.cat([data.train.y, data.validation.y])).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert data.test.floats().mean().item() == pytest.approx(0.1325, abs=1e-4)  # as published
    assert choose("auto", data_root).name == "mnist"

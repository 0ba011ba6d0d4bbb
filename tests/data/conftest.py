import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KINDS = ("MNIST", "FashionMNIST", "KMNIST")


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(root: Path, kind: str = "MNIST", n_train: int = 300, compress: bool = False) -> Path:
    """A small set in torchvision's layout, labels 0..9 in turn."""
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for stem, n in (("train", n_train), ("t10k", 50)):
        arrays = {
            f"{stem}-images-idx3-ubyte": rng.integers(0, 256, (n, 28, 28)),
            f"{stem}-labels-idx1-ubyte": np.arange(n) % 10,
        }
        for name, array in arrays.items():
            content = idx_bytes(array)
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


def write_cifar_batches(root: Path, n: int = 60) -> Path:
    """The binary files of CIFAR-10, n pictures in each, labels 0..9 in turn."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (n, 3073)).astype(np.uint8)
        records[:, 0] = np.arange(n) % 10
        (folder / name).write_bytes(records.tobytes())
    return folder


def write_cifar_sheets(root: Path, rows: int = 6, columns: int = 25) -> Path:
    """Lossless sheets of random pictures, rows * columns in each."""
    folder = root / "cifar10"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in ("train_0", "train_1", "test"):
        sheet = rng.integers(0, 256, (32 * rows, 32 * columns, 3)).astype(np.uint8)
        Image.fromarray(sheet).save(folder / f"cifar10_{name}.webp", lossless=True)
    return folder


def write_image_folder(root: Path, n: int = 200, classes: int = 5) -> Path:
    """Random pictures, one sub-folder per class."""
    rng = np.random.default_rng(2)
    for i in range(n):
        path = root / "images" / f"class {i % classes}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)).save(path)
    return root / "images"


@pytest.fixture
def idx_root(tmp_path: Path) -> Path:
    for kind in KINDS:
        write_idx(tmp_path, kind)
    return tmp_path


@pytest.fixture
def set_root(idx_root: Path) -> Path:
    """A folder with every set of the package that comes in files."""
    write_cifar_batches(idx_root)
    write_cifar_sheets(idx_root / "sheets")
    write_image_folder(idx_root)
    return idx_root


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the addresses that every set is downloaded from; before that, all refuse."""
    import torchvision

    import svae.data.cifar10

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def use(*addresses: str) -> None:
        for kind in KINDS:
            source = getattr(torchvision.datasets, kind)
            monkeypatch.setattr(source, "mirrors", list(addresses))

        monkeypatch.setattr(svae.data.cifar10, "MIRRORS", list(addresses))

    use("http://127.0.0.1:9/")  # the discard port: nothing listens
    return use

"""CIFAR-10 in both of its forms, damaged, downloaded, and the real thing."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import svae.data.cifar10
from svae.data import CIFAR10, choose
from tests.data.conftest import write_cifar_batches, write_cifar_sheets

Mirrors = Callable[..., None]


def test_binary_files_are_read_as_the_format_says(tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path)
    data = CIFAR10(tmp_path, n_validation=50)
    assert (data.x_shape, data.train.x.dtype) == ((3, 32, 32), torch.uint8)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [250, 50, 60]
    record = (folder / "test_batch.bin").read_bytes()[7 * 3073 : 8 * 3073]
    assert data.test.y is not None
    assert int(data.test.y[7]) == record[0] == 7
    channel, row, column = 1, 5, 9
    assert data.test.x[7, channel, row, column] == record[1 + 1024 * channel + 32 * row + column]
    assert data.class_names[7] == "horse"


def test_sheets_are_read_row_by_row(tmp_path: Path) -> None:
    folder = write_cifar_sheets(tmp_path, rows=6, columns=25)
    data = CIFAR10(tmp_path, n_validation=50)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [250, 50, 150]
    sheet = np.asarray(Image.open(folder / "cifar10_test.webp"))
    row, column = 2, 3  # the 53rd picture
    patch = sheet[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
    assert np.array_equal(data.test.x[53].permute(1, 2, 0).numpy(), patch)
    assert data.test.y is not None
    assert data.test.y.tolist() == [i % 10 for i in range(150)]


def test_binary_files_come_before_sheets(tmp_path: Path) -> None:
    write_cifar_sheets(tmp_path)
    folder = write_cifar_batches(tmp_path)
    assert len(CIFAR10(tmp_path, n_validation=50).test) == 60
    (folder / "data_batch_3.bin").unlink()
    assert len(CIFAR10(tmp_path, n_validation=50).test) == 150


def test_limit_leaves_the_validation_set(tmp_path: Path) -> None:
    write_cifar_batches(tmp_path)
    data, limited = (CIFAR10(tmp_path, n_validation=50, limit=n) for n in (None, 40))
    assert len(limited.train) == 40
    assert torch.equal(limited.validation.x, data.validation.x)
    with pytest.raises(ValueError, match="limit is 0, expected at least 1"):
        CIFAR10(tmp_path, n_validation=50, limit=0)
    with pytest.raises(ValueError, match=r"n_validation is 5000, expected 1\.\.299"):
        CIFAR10(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], "test_batch.bin is damaged: expected whole records of 3073 bytes, fou"),
        (lambda c: b"", "found 0 bytes. Delete .*test_batch.bin"),
        (lambda c: c[: 3073 * 4] + b"\x0b" + c[3073 * 4 + 1 :], r"found 11 in record 4\. Delete"),
    ],
)
def test_damaged_binary_files(
    damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    path = write_cifar_batches(tmp_path) / "test_batch.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        CIFAR10(tmp_path, n_validation=50)


def _saved(size: tuple[int, int], mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda c: c[: len(c) // 2], "train_1.webp is damaged: .*Pillow can decode.*Copy it aga"),
        (lambda c: b"<html>", "train_1.webp is damaged: .*Pillow can decode.*Copy it again"),
        (lambda c: _saved((100, 64)), r"shape \(64, 100, 3\), expected .*multiples of 32"),
        (lambda c: _saved((64, 64), "L"), r"shape \(64, 64\), expected \(height, width, 3\)"),
    ],
)
def test_damaged_sheets(content: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = write_cifar_sheets(tmp_path) / "cifar10_train_1.webp"
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        CIFAR10(tmp_path, n_validation=50)


def test_what_is_missing_is_named(tmp_path: Path, mirrors: Mirrors) -> None:
    (write_cifar_batches(tmp_path) / "data_batch_2.bin").unlink()
    message = "bin lacks data_batch_2.bin and .*cifar10 lacks cifar10_train_0.webp.*127.0.0.1.*Put"
    with pytest.raises(FileNotFoundError, match=message):
        choose("cifar10", tmp_path)


def _archive(path: Path, source: Path, without: str = "") -> None:
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(source.iterdir()):
            if file.name != without:
                tar.add(file, f"cifar-10-batches-bin/{file.name}")


def test_archive_is_downloaded_checked_and_unpacked(
    tmp_path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_cifar_batches(tmp_path / "source")
    served = tmp_path / "served"
    served.mkdir()
    archive = served / "cifar-10-binary.tar.gz"
    _archive(archive, source)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirrors(f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(FileNotFoundError, match="wrong checksum"):
            CIFAR10(tmp_path / "new", n_validation=50)
        assert not (tmp_path / "new").exists()
        checksum = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(svae.data.cifar10, "CHECKSUM", checksum)
        data = CIFAR10(tmp_path / "new", n_validation=50)
        server.shutdown()
    expected = CIFAR10(tmp_path / "source", n_validation=50)
    assert torch.equal(data.train.x, expected.train.x)
    assert len(list((tmp_path / "new/cifar-10-batches-bin").iterdir())) == 6


def test_an_archive_in_place_is_unpacked_and_a_damaged_one_named(
    tmp_path: Path, mirrors: Mirrors
) -> None:
    source = write_cifar_batches(tmp_path / "source")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    _archive(archive, source, without="data_batch_4.bin")
    with pytest.raises(ValueError, match=r"is damaged: .*it lacks data_batch_4\.bin.*Delete"):
        CIFAR10(tmp_path, n_validation=50)
    _archive(archive, source)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"gz is damaged: expected the complete.*Delete"):
        CIFAR10(tmp_path, n_validation=50)
    archive.write_bytes(content)
    assert len(CIFAR10(tmp_path, n_validation=50).test) == 60


@pytest.mark.data
def test_real_sheets_hold_the_published_pictures(data_root: Path) -> None:
    if not (data_root / "cifar10/cifar10_test.webp").is_file():
        pytest.skip("needs the sheets of CIFAR-10")
    data = choose("cifar10", data_root)
    assert isinstance(data, CIFAR10)
    if not (data_root / "cifar-10-batches-bin").is_dir():
        assert [len(part) for part in (data.train, data.validation)] == [15000, 5000]
        pixels = data.test.x.permute(0, 2, 3, 1).contiguous().numpy()
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == (
            "5a9500ba8a5b33575c76e8b2a90e6f3598b3313f3c1ace11fc700407a5ae81ec"
        )
    assert data.test.y is not None
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    # Published means of the channels, here of the training pictures: .4914, .4822, .4465.
    means = data.train.floats().mean((0, 2, 3))
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-3)

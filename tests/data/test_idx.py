"""Files found, missing, damaged and downloaded; the network is a server on this machine."""

import gzip
import hashlib
import http.server
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import svae.data.download
from svae.data import MNIST, choose
from svae.data.idx import ensure, read
from tests.data.conftest import idx_bytes, write_idx

Mirrors = Callable[..., None]


def test_plain_and_packed_files_read_the_same(tmp_path: Path) -> None:
    plain = write_idx(tmp_path / "a")
    packed = write_idx(tmp_path / "b", compress=True)
    for part, n in (("train", 300), ("test", 50)):
        x, y = read(plain, part)
        assert (x.shape, x.dtype) == ((n, 1, 28, 28), torch.uint8)
        assert (y.dtype, y[:12].tolist()) == (torch.int64, [*range(10), 0, 1])
        assert all(torch.equal(a, b) for a, b in zip((x, y), read(packed, part), strict=True))
    assert (
        x[3, 0, 5, 7]
        == (plain / "t10k-images-idx3-ubyte").read_bytes()[16 + 3 * 28 * 28 + 5 * 28 + 7]
    )


def test_root_is_the_argument_then_the_environment_then_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrors: Mirrors
) -> None:
    a, b, c = (write_idx(tmp_path / name) for name in ("a", "b", "c/data"))
    monkeypatch.chdir(tmp_path / "c")
    monkeypatch.setenv("SVAE_DATA", str(tmp_path / "b"))
    assert ensure("MNIST", tmp_path / "a") == a
    assert ensure("MNIST", str(tmp_path / "a")) == a
    assert ensure("MNIST") == b
    monkeypatch.delenv("SVAE_DATA")
    assert ensure("MNIST").resolve() == c


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda c: c[:1000], "truncated: expected 235216 bytes.*found 1000.*Delete"),
        (IMAGES, lambda c: c[:9], "truncated: expected a header of 16 bytes, found 9 bytes"),
        (IMAGES, lambda c: b"", "truncated: expected a header of 16 bytes, found 0 bytes"),
        (IMAGES, lambda c: c + b"x", "damaged: expected 235216 bytes.*found 235217"),
        (IMAGES, lambda c: b"<html>" + c, "expected it to start with 0x00000803, found 0x3c68"),
        (LABELS, lambda c: c[:-1], "truncated: expected 308 bytes for 300 values, found 307"),
        (LABELS, lambda c: idx_bytes(np.arange(299)), "300 images and 299 labels.*expected one"),
        (LABELS, lambda c: c[:-1] + b"\x0b", r"label 11 .*example.*expected labels in 0\.\.9"),
        (IMAGES, lambda c: c[:8] + c[8:16][::-1] + c[16:], "truncated: expected"),
    ],
)
def test_damaged_files(
    name: str, damage: Callable[[bytes], bytes], message: str, tmp_path: Path, mirrors: Mirrors
) -> None:
    path = write_idx(tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        MNIST(tmp_path, n_validation=50)
    if "label 11" not in message:
        assert str(path.parent) in str(caught.value)
        with pytest.raises(ValueError, match=message):  # what is there is never silently replaced
            choose("auto", tmp_path)


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"not a gzip file"])
def test_damaged_gzip_files(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_idx(tmp_path, compress=True) / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"gz is damaged: expected a complete gzip.*Delete"):
        MNIST(tmp_path, n_validation=50)


def test_missing_file_without_network_names_it(tmp_path: Path, mirrors: Mirrors) -> None:
    path = write_idx(tmp_path) / LABELS
    path.unlink()
    message = rf"MNIST is not complete in .*expected {LABELS} \(or .gz\).*127.0.0.1.*--dataset dig"
    with pytest.raises(FileNotFoundError, match=message):
        MNIST(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{LABELS} is missing"):
        read(path.parent, "train")
    assert not (tmp_path / "KMNIST").exists()
    with pytest.raises(FileNotFoundError, match="KMNIST is not complete"):
        choose("kmnist", tmp_path)
    assert not (tmp_path / "KMNIST").exists()  # nothing is left behind by a failure


def test_auto_falls_back_to_digits_in_one_clear_line(
    tmp_path: Path, mirrors: Mirrors, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="svae"):
        data = choose("auto", tmp_path, batch_size=16, seed=5)
    assert (data.name, data.batch_size, data.seed) == ("digits", 16, 5)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    line = record.getMessage()
    assert "\n" not in line
    for word in ("MNIST was neither found nor downloaded", "127.0.0.1", "digits", "--dataset mni"):
        assert word in line
    with pytest.raises(FileNotFoundError, match="MNIST is not complete"):
        choose("mnist", tmp_path)


def test_auto_takes_mnist_where_it_is_found(tmp_path: Path, mirrors: Mirrors) -> None:
    write_idx(tmp_path, "MNIST", n_train=5020)  # of which 5000 to validate
    write_idx(tmp_path, "FashionMNIST", n_train=5020)
    assert choose("auto", tmp_path).name == "mnist"
    assert choose("fashion", tmp_path).name == "fashion"


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="dataset is 'cifar', expected one of auto, mnist"):
        choose("cifar")


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A server that takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.mark.parametrize("host", [None, "http://192.0.2.1/", "http://no-such-host.invalid/"])
def test_what_does_not_answer_is_given_up(
    host: str | None,
    silent_address: str,
    tmp_path: Path,
    mirrors: Mirrors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert svae.data.download.CONNECT_SECONDS <= 8  # the promise is 10, with imports
    monkeypatch.setattr(svae.data.download, "CONNECT_SECONDS", 1.0)
    address = host or silent_address
    mirrors(*[address] * 20)  # which together would take longer
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="download failed"):
        ensure("MNIST", tmp_path)
    assert time.monotonic() - start < 5


@pytest.fixture
def server(tmp_path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mirror of a small MNIST; gives its folder."""
    import torchvision

    folder = write_idx(tmp_path / "mirror", compress=True)
    resources = [
        (path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in folder.iterdir()
    ]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        # the first refuses, the second serves
        mirrors("http://127.0.0.1:9/", f"http://127.0.0.1:{httpd.server_port}/")
        yield folder
        httpd.shutdown()


def test_download_from_the_first_mirror_that_serves(tmp_path: Path, server: Path) -> None:
    root = tmp_path / "new" / "root"
    data = MNIST(root, n_validation=50)
    assert torch.equal(data.test.x, read(server, "test")[0])
    names = sorted(path.name for path in (root / "MNIST" / "raw").iterdir())
    assert names == sorted(path.name for path in server.iterdir())


def test_download_adds_only_what_is_missing(tmp_path: Path, server: Path) -> None:
    folder = write_idx(tmp_path / "root")
    (folder / LABELS).unlink()
    ensure("MNIST", tmp_path / "root")
    assert len(list(folder.iterdir())) == 4
    assert (folder / f"{LABELS}.gz").is_file()


def test_download_with_a_wrong_checksum_is_not_kept(tmp_path: Path, server: Path) -> None:
    (server / f"{LABELS}.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(FileNotFoundError, match="wrong checksum"):
        ensure("MNIST", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_slow_download_is_given_up_where_patience_is_asked_for(
    tmp_path: Path, mirrors: Mirrors
) -> None:
    done = threading.Event()

    class Trickle(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not done.wait(0.05):
                self.wfile.write(b"x" * 70_000)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """The client hangs up on purpose."""

    with Server(("127.0.0.1", 0), Trickle) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        mirrors(f"http://127.0.0.1:{httpd.server_port}/")
        start = time.monotonic()
        with pytest.raises(FileNotFoundError, match=r"not complete within 0\.5 seconds"):
            ensure("MNIST", tmp_path, patience=0.5)
        assert time.monotonic() - start < 5
        done.set()
        httpd.shutdown()


@pytest.mark.parametrize("n_validation", [0, 300, 5000])
def test_validation_must_leave_training_examples(n_validation: int, idx_root: Path) -> None:
    with pytest.raises(ValueError, match=rf"n_validation is {n_validation}, expected 1\.\.299"):
        MNIST(idx_root, n_validation=n_validation)


def test_limit_must_be_positive(idx_root: Path) -> None:
    with pytest.raises(ValueError, match="limit is 0, expected at least 1"):
        MNIST(idx_root, limit=0)

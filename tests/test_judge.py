import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import svae.judge
from svae.data import MNIST, Digits
from svae.judge import Judge, load_judge, save_judge, train_judge
from svae.metrics import accuracy

SHIPPED = Path(svae.judge.__file__).parent / "judges"


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@dataclass
class Part:
    x: torch.Tensor
    y: torch.Tensor | None


@dataclass
class Data:
    name: str
    train: Part
    validation: Part
    x_shape: tuple[int, ...] = (1, 28, 28)
    n_classes: int = 10


def stand_in(name: str = "mnist", n: int = 40) -> Data:
    """A set of random images under any name."""
    train, validation = (Part(torch.rand(n, 1, 28, 28), torch.arange(n) % 10) for _ in range(2))
    return Data(name, train, validation)


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 9, 17), (1, 28, 28), (3, 32, 32), (2, 128, 128), (1, 3, 3), (5,)]
)
def test_any_shape(shape: tuple[int, ...]) -> None:
    judge = Judge(shape, n_classes=4).eval()
    x = torch.rand(3, *shape)
    assert judge.features(x).shape == (3, 64)
    assert judge(x).shape == (3, 4)
    assert torch.allclose(judge(x)[1:], judge(x[1:]), atol=1e-5)
    assert torch.allclose(judge(x), judge.head(judge.features(x)))


def test_the_shipped_judge_is_small_checked_and_frozen() -> None:
    content = (SHIPPED / "mnist.safetensors").read_bytes()
    described = json.loads((SHIPPED / "mnist.json").read_text())
    assert len(content) < 1e6
    assert hashlib.sha256(content).hexdigest() == described["sha256"]
    assert described["test_accuracy"] >= 0.993
    judge = load_judge(stand_in())
    assert not judge.training
    assert not any(p.requires_grad for p in judge.parameters())
    assert judge.validation_accuracy == described["validation_accuracy"] > 0.99


@pytest.mark.data
def test_the_shipped_judge_is_as_good_as_it_says(data_root: Path) -> None:
    data = MNIST(data_root)
    judge, test = load_judge(data), data.test
    assert test.y is not None
    with torch.no_grad():
        found = accuracy(judge(test.floats(limit=3000)), test.y[:3000])
    assert found.value > 0.985  # the first half of the test set is no easier than the second
    assert found.low < json.loads((SHIPPED / "mnist.json").read_text())["test_accuracy"]


def test_a_damaged_shipped_judge_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judges").mkdir()
    content = bytearray((SHIPPED / "mnist.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "judges" / "mnist.safetensors").write_bytes(content)
    (tmp_path / "judges" / "mnist.json").write_bytes((SHIPPED / "mnist.json").read_bytes())
    monkeypatch.setattr(svae.judge.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"mnist\.safetensors is damaged: expected sha256 .* got"):
        load_judge(stand_in())


def test_digits_are_trained_once_and_cached(
    digits: Digits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained = load_judge(digits, tmp_path / "new")
    test = digits.test
    assert test.y is not None
    assert accuracy(trained(test.floats()), test.y).value > 0.97
    (file,) = (tmp_path / "new").iterdir()

    with monkeypatch.context() as patch:
        patch.setattr(svae.judge, "train_judge", lambda data: pytest.fail("trained again"))
        patch.setenv("SVAE_CACHE", str(tmp_path / "new"))
        cached = load_judge(digits)
    assert torch.equal(cached(test.floats()), trained(test.floats()))
    assert cached.validation_accuracy == trained.validation_accuracy > 0.97

    file.write_bytes(file.read_bytes()[:1000])
    monkeypatch.setattr(svae.judge, "train_judge", lambda data: trained)
    with caplog.at_level(logging.WARNING, "svae"):
        load_judge(digits, tmp_path / "new")
    assert "cannot be read" in caplog.text
    assert file.stat().st_size > 1000


def test_changed_data_never_meet_an_old_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def train(data: Data) -> Judge:
        calls.append(data)
        return Judge(data.x_shape, data.n_classes)

    monkeypatch.setattr(svae.judge, "train_judge", train)
    data = stand_in("other")
    load_judge(data, tmp_path)
    load_judge(data, tmp_path)
    assert len(calls) == 1
    data.train.x[0, 0, 0, 0] += 0.5
    load_judge(data, tmp_path)
    data.validation.y = torch.arange(1, 41) % 10
    load_judge(data, tmp_path)
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(svae.judge, "train_judge", lambda data: Judge((1, 28, 28), 10))
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING, "svae"):
        load_judge(stand_in("other"), tmp_path / "file")
    assert "set SVAE_CACHE to a writable folder" in caplog.text


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    data = stand_in("other", n=130)
    state = torch.get_rng_state()
    first, again, other = (train_judge(data, epochs=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    weights = [judge.head.weight for judge in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_a_judge_is_trained_where_gradients_are_off(switched_off: Callable[..., Any]) -> None:
    data = stand_in("other", n=130)
    with switched_off():
        judge = train_judge(data, epochs=1)
    assert torch.equal(judge.head.weight, train_judge(data, epochs=1).head.weight)


def test_bytes_and_floats_are_one_to_a_judge() -> None:
    bytes_, floats = stand_in("other"), stand_in("other")
    for part, other in ((bytes_.train, floats.train), (bytes_.validation, floats.validation)):
        part.x = (255 * part.x).byte()
        other.x = part.x.float() / 255
    first, again = train_judge(bytes_, epochs=1), train_judge(floats, epochs=1)
    assert torch.equal(first.head.weight, again.head.weight)


def test_flat_vectors_are_learned() -> None:
    y = torch.arange(600) % 3
    x = (0.1 * torch.rand(600, 5) + 0.3 * y[:, None]).clamp(0, 1)
    data = Data("flat", Part(x, y), Part(x, y), x_shape=(5,), n_classes=3)
    judge = train_judge(data, epochs=40)
    assert judge.validation_accuracy > 0.95


def test_the_script_on_digits(tmp_path: Path, one_thread: None) -> None:
    from experiments.train_judge import main

    main(["--dataset", "digits", "--max-epochs", "2", "--out", str(tmp_path)])
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    described = json.loads((tmp_path / "digits.json").read_text())
    content = (tmp_path / "digits.safetensors").read_bytes()
    assert numbers["dataset"] == "digits"
    assert numbers["test_accuracy_low"] < numbers["test_accuracy"] < numbers["test_accuracy_high"]
    assert described["sha256"] == hashlib.sha256(content).hexdigest()
    assert described["command"] == "python experiments/train_judge.py --dataset digits --seed 0"


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got \(28, 28\)\. Add the channel"):
        Judge((28, 28), 10)
    with pytest.raises(ValueError, match=r"n_classes >= 2 .* got 1 and 64"):
        Judge((1, 8, 8), 1)
    with pytest.raises(ValueError, match=r"built for examples of shape \(1, 8, 8\).*\(1, 9, 9\)"):
        Judge((1, 8, 8), 10)(torch.rand(2, 1, 9, 9))
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        train_judge(stand_in(), epochs=0)
    data = stand_in("unlabelled")
    data.train.y = None
    with pytest.raises(ValueError, match="'unlabelled' has no labelled train set"):
        load_judge(data, tmp_path)
    save_judge(Judge((5,), 2), tmp_path / "judge.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["judge.safetensors"]

"""An independent judge: a small classifier that no model of ours is ever trained against.

Whether a resampled picture kept its class cannot be left to the model that made it, and a
distance between sets of pictures needs features that know the domain. Both come from here: MNIST
has a judge in the package, any other set trains one on first use.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from svae.caching import cache_folder
from svae.labels import read_labels
from svae.saving import Described

__all__ = ["Examples", "Judge", "LabelledData", "load_judge", "save_judge", "train_judge"]

logger = logging.getLogger("svae")

# Part of the cache key: raise it with every change of network or training that alters the weights.
RECIPE = 1


@runtime_checkable
class Examples(Protocol):
    """A set held as tensors, such as ``svae.data.ArraySet``."""

    x: Tensor  # uint8 in 0..255, or floats in [0, 1]
    y: Tensor | None


@runtime_checkable
class LabelledData(Protocol):
    """What a judge needs of a data set; ``svae.data.ArrayData`` has it."""

    name: str

    @property
    def train(self) -> Examples:
        """What a judge learns from."""
        ...

    @property
    def validation(self) -> Examples:
        """What its best epoch is chosen by."""
        ...

    @property
    def x_shape(self) -> Sequence[int]:
        """Shape of one example."""
        ...

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        ...


class Judge(Described, nn.Module):
    r"""A small classifier of images (or flat vectors) with features worth measuring in.

    Convolutions of three by three and width 16, 16, 48, 64, each with batch normalisation and
    ReLU, pooled in between until the shorter side is at most 12 pixels, then to
    :math:`3 \times 3`, then a hidden layer. Flat inputs get two hidden layers instead. 75 thousand
    weights for MNIST.

    Args:
        x_shape: Shape of one example: ``(channels, height, width)`` with sides of 3 or more, or
            ``(features,)``.
        n_classes: Number of classes :math:`K`, at least 2.
        n_features: Width of the penultimate layer, at least 1.

    Raises:
        ValueError: If a shape or a number is out of range.

    Example:
        >>> judge = Judge((1, 8, 8), n_classes=10).eval()
        >>> x = torch.rand(5, 1, 8, 8)
        >>> judge(x).shape, judge.features(x).shape
        (torch.Size([5, 10]), torch.Size([5, 64]))
    """

    def __init__(self, x_shape: Sequence[int], n_classes: int, n_features: int = 64) -> None:
        super().__init__()
        if len(x_shape) not in (1, 3) or min(x_shape) < 1 or min(x_shape[1:], default=3) < 3:
            raise ValueError(
                "the judge takes examples of shape (channels, height, width) with sides >= 3, or "
                f"(features,); got {tuple(x_shape)}. Add the channel with x.unsqueeze(1)?"
            )
        if n_classes < 2 or n_features < 1:
            raise ValueError(
                "the judge needs n_classes >= 2 and n_features >= 1; "
                f"got {n_classes} and {n_features}."
            )
        self.x_shape = tuple(x_shape)
        self.n_classes = n_classes
        self.n_features = n_features
        self.validation_accuracy = math.nan  # of the epoch that was kept, once trained
        trunk = _flat(x_shape[0]) if len(x_shape) == 1 else _convolutional(x_shape)
        width = 256 if len(x_shape) == 1 else 9 * 64
        self.trunk = nn.Sequential(*trunk, nn.Linear(width, n_features), nn.ReLU())
        self.head = nn.Linear(n_features, n_classes)

    def features(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch n_features"]:
        """Activations of the penultimate layer, not negative, for ``x`` in [0, 1]."""
        if tuple(x.shape[1:]) != self.x_shape:
            raise ValueError(
                f"the judge was built for examples of shape {self.x_shape}; got a batch of "
                f"{tuple(x.shape[1:])}. A judge serves one data set: load_judge(data) gives it."
            )
        # Twice as fast as the default layout for these convolutions on a CPU.
        return self.trunk(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch n_classes"]:
        """Logits for ``x`` in [0, 1]."""
        return self.head(self.features(x))


def _flat(n: int) -> list[nn.Module]:
    return [
        nn.Linear(n, 256, bias=False),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Linear(256, 256, bias=False),
        nn.BatchNorm1d(256),
        nn.ReLU(),
    ]


def _convolutional(x_shape: Sequence[int]) -> list[nn.Module]:
    channels, size = x_shape[0], min(x_shape[1:])
    layers: list[nn.Module] = []

    def convolution(width: int) -> None:
        nonlocal channels
        layers.extend(
            [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        )
        channels = width

    def pool() -> None:
        nonlocal size
        layers.append(nn.MaxPool2d(2))
        size //= 2

    convolution(16)
    convolution(16)
    if size >= 8:
        pool()
    convolution(48)
    while size > 12:
        pool()
        convolution(64)
    if channels != 64:
        convolution(64)
    return [*layers, nn.AdaptiveMaxPool2d(3), nn.Flatten()]


@torch.inference_mode(False)
@torch.enable_grad()
def train_judge(
    data: LabelledData, epochs: int | None = None, seed: int = 0, device: str = "cpu"
) -> Judge:
    """Trains a judge on ``data.train`` and keeps the epoch that is best on ``data.validation``.

    AdamW under a one-cycle rate, batches of 128, random rotation, scale and shift, bfloat16
    arithmetic. Data, seed, machine and number of threads fix the weights to the bit. It is trained
    as well where gradients are switched off, as audits do before they need a judge.

    Args:
        data: Data with labelled ``train`` and ``validation`` sets; the test set is not read.
        epochs: Passes over the training set; None takes 15, and where the set is small what gives
            500 steps.
        seed: Seeds initial weights, order and augmentation.
        device: Where to train; the judge returned is on the CPU.

    Returns:
        The judge in eval mode, without gradients, with the attribute ``validation_accuracy``.

    Raises:
        ValueError: If a set has no labels, or ``epochs`` is less than 1.

    Example:
        >>> judge = train_judge(svae.data.Digits())  # doctest: +SKIP
    """
    if epochs is not None and epochs < 1:
        raise ValueError(
            f"epochs must be at least 1; got {epochs}. Leave it out for the recipe's own number."
        )
    x, y = _labelled(data, "train")
    validation_x, validation_y = _labelled(data, "validation")
    batch_size = 128
    n_batches = max(1, len(x) // batch_size)
    epochs = epochs or max(15, math.ceil(500 / n_batches))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = (
            Judge(data.x_shape, data.n_classes).to(device).to(memory_format=torch.channels_last)
        )
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=6e-3, total_steps=epochs * n_batches, pct_start=0.2
    )
    best, kept = (-1.0, 0.0), {}
    for epoch in range(epochs):
        judge.train()
        order = torch.randperm(len(x), generator=generator)
        for i in range(n_batches):
            rows = order[i * batch_size : (i + 1) * batch_size]
            images = _jitter(_floats(x[rows]), generator).to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                loss = F.cross_entropy(
                    judge(images).float(), y[rows].to(device), label_smoothing=0.02
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy, nll = _score(judge, validation_x, validation_y, device)
        logger.info(
            "judge: epoch %d of %d, validation accuracy %.4f, nll %.4f",
            epoch + 1,
            epochs,
            accuracy,
            nll,
        )
        if (accuracy, -nll) > best:
            best = (accuracy, -nll)
            kept = {
                name: value.detach().cpu().clone() for name, value in judge.state_dict().items()
            }
    return _finished(_new(data.x_shape, data.n_classes), kept, best[0])


def load_judge(data: LabelledData, cache: str | os.PathLike[str] | None = None) -> Judge:
    """The judge of a data set: shipped for MNIST, else trained once on ``data.train`` and cached.

    Args:
        data: The data set. One with the name ``mnist`` and examples of shape ``(1, 28, 28)`` gets
            the shipped judge.
        cache: Folder of judges trained earlier; None takes ``$SVAE_CACHE``, else
            ``~/.cache/svae``. A judge's file is named after a hash of the training and validation
            arrays, so changed data never meet an old judge.

    Returns:
        The judge in eval mode on the CPU, without gradients.

    Raises:
        ValueError: If the shipped weights are damaged (the checksum differs), or a set has no
            labels.
    """
    shape = tuple(data.x_shape)
    if data.name.lower() == "mnist" and shape == (1, 28, 28):
        return _shipped("mnist", shape, data.n_classes)
    folder = cache_folder(cache)
    path = folder / f"judge-{_fingerprint(data)}.safetensors"
    if path.exists():
        try:
            return _read(path, shape, data.n_classes)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, a cache stops nobody
            logger.warning(
                "the cached judge %s cannot be read (%s); training it again", path, error
            )
    logger.info("training the judge for %s, once; it will be kept in %s", data.name, folder)
    judge = train_judge(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_judge(judge, path)
    except OSError as error:
        logger.warning(
            "the judge cannot be kept in %s (%s); set SVAE_CACHE to a writable folder",
            folder,
            error,
        )
    return judge


def save_judge(judge: Judge, path: str | os.PathLike[str]) -> None:
    """Writes a judge's weights to one safetensors file; readers never see half of it."""
    from safetensors.torch import save

    tensors = {name: value.contiguous() for name, value in judge.state_dict().items()}
    content = save(tensors, {"validation_accuracy": repr(judge.validation_accuracy)})
    # The unfinished file is named after the process: several may train the same judge at once.
    unfinished = Path(f"{path}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _shipped(name: str, x_shape: Sequence[int], n_classes: int) -> Judge:
    folder = resources.files("svae") / "judges"
    content = (folder / f"{name}.safetensors").read_bytes()
    expected = json.loads((folder / f"{name}.json").read_text())["sha256"]
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"the shipped judge svae/judges/{name}.safetensors is damaged: expected sha256 "
            f"{expected}, got {found}. Install the package again, or restore the file with git."
        )
    with resources.as_file(folder / f"{name}.safetensors") as path:
        return _read(path, x_shape, n_classes)


def _read(path: Path, x_shape: Sequence[int], n_classes: int) -> Judge:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        accuracy = float((file.metadata() or {}).get("validation_accuracy", "nan"))
    return _finished(_new(x_shape, n_classes), state, accuracy)


def _new(x_shape: Sequence[int], n_classes: int, seed: int = 0) -> Judge:
    """A judge with first weights of its own, whose draw leaves the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Judge(x_shape, n_classes).to(memory_format=torch.channels_last)


def _finished(judge: Judge, state: dict[str, Tensor], validation_accuracy: float) -> Judge:
    judge.load_state_dict(state)
    judge = judge.eval().requires_grad_(False)
    judge.validation_accuracy = validation_accuracy
    return judge


def _labelled(data: LabelledData, name: str) -> tuple[Shaped[Tensor, "n ..."], Int[Tensor, " n"]]:
    examples = getattr(data, name)
    if examples is None or examples.y is None or len(examples.y) == 0:
        raise ValueError(
            f"a judge learns from labels, but {data.name!r} has no labelled {name} set. Give "
            "labels, or a judge of your own: any callable from images to logits."
        )
    labels = read_labels(examples.y)
    if not bool(labels.known.any()):
        raise ValueError(f"no {name} example of {data.name!r} has a label: all are -1")
    return examples.x[labels.known], labels.hard[labels.known]


def _fingerprint(data: LabelledData) -> str:
    digest = hashlib.sha256(
        f"recipe {RECIPE}, {tuple(data.x_shape)}, {data.n_classes} classes".encode()
    )
    for name in ("train", "validation"):
        for values in _labelled(data, name):
            digest.update(f"{values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _floats(x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def _jitter(
    x: Float[Tensor, "batch ..."], generator: torch.Generator
) -> Float[Tensor, "batch ..."]:
    """Rotates by up to 12 degrees, scales by up to 12 % and shifts by up to 8 %, by image.

    Kept here, not taken from ``svae.data``: the shipped weights and every cached file depend on it
    to the bit.
    """
    if x.dim() != 4:
        return x
    draws = 2 * torch.rand(len(x), 4, generator=generator) - 1
    angle, scale = draws[:, 0] * math.radians(12), 1 + 0.12 * draws[:, 1]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift_x, shift_y = 2 * 0.08 * draws[:, 2], 2 * 0.08 * draws[:, 3]
    theta = torch.stack([cos, -sin, shift_x, sin, cos, shift_y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@torch.no_grad()
def _score(
    judge: Judge, x: Shaped[Tensor, "n ..."], y: Int[Tensor, " n"], device: str
) -> tuple[float, float]:
    judge.eval()
    logits = torch.cat([judge(_floats(part).to(device)).float().cpu() for part in x.split(500)])
    return (logits.argmax(1) == y).double().mean().item(), F.cross_entropy(logits, y).item()

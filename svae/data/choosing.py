"""Which set a command runs on."""

import logging
from pathlib import Path
from typing import Any

from svae.data.cifar10 import CIFAR10
from svae.data.digits import Digits
from svae.data.dsprites import DSprites
from svae.data.idx import ensure
from svae.data.mnist import KMNIST, MNIST, FashionMNIST
from svae.data.module import ArrayData

_logger = logging.getLogger("svae")

# For `auto`: seconds that a whole download may take before the embedded digits stand in.
PATIENCE = 8.0

NAMES = ("auto", "mnist", "fashion", "kmnist", "cifar10", "dsprites", "digits")


def choose(
    name: str = "auto", root: str | Path | None = None, batch_size: int = 128, seed: int = 0
) -> ArrayData:
    """The set of that name; ``auto`` is MNIST where it can be had quickly, else the digits.

    ``auto`` takes MNIST where its files are found or downloaded within a few seconds, and
    otherwise scikit-learn's embedded digits, with one warning on the logger ``svae`` that says so;
    ``data.name`` tells which it is. Every other name insists.

    Args:
        name: ``auto``, ``mnist``, ``fashion``, ``kmnist``, ``cifar10``, ``dsprites`` or
            ``digits``.
        root: Folder of the data; by default ``$SVAE_DATA``, else ``data``.
        batch_size: Examples per batch and process.
        seed: Split and orders.

    Raises:
        FileNotFoundError: If a set that is insisted on is neither found nor downloaded.
        ValueError: If the name is unknown, or a file is damaged.

    Example:
        >>> svae.data.choose("digits").name
        'digits'
    """
    if name not in NAMES:
        raise ValueError(f"dataset is {name!r}, expected one of {', '.join(NAMES)}.")
    if name == "auto":
        try:
            ensure("MNIST", root, patience=PATIENCE)
        except FileNotFoundError as error:
            _logger.warning(
                "MNIST was neither found nor downloaded (%s): using scikit-learn's embedded "
                "digits (8x8) instead. --dataset mnist insists.",
                error.__cause__ or error,
            )
            name = "digits"
        else:
            name = "mnist"
    if name == "digits":
        return Digits(batch_size=batch_size, seed=seed)
    sets: dict[str, Any] = {
        "mnist": MNIST,
        "fashion": FashionMNIST,
        "kmnist": KMNIST,
        "cifar10": CIFAR10,
        "dsprites": DSprites,
    }
    return sets[name](root, batch_size=batch_size, seed=seed)

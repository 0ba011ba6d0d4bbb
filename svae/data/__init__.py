"""Data sets as arrays: MNIST and its likes, CIFAR-10, dSprites, digits, folders, any tensors."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svae.data.arrays import ArraySet, BatchLoader, Mixture
    from svae.data.augment import RandomAffine
    from svae.data.batch import Batch
    from svae.data.captioned import CaptionedDigits
    from svae.data.choosing import choose
    from svae.data.cifar10 import CIFAR10
    from svae.data.coloured import ColouredDigits
    from svae.data.conversion import as_data
    from svae.data.digits import Digits
    from svae.data.dsprites import DSprites
    from svae.data.folder import ImageFolder, unlabelled_images
    from svae.data.mnist import KMNIST, MNIST, FashionMNIST
    from svae.data.module import ArrayData
    from svae.data.morphed import MorphedDigits
    from svae.data.pairing import PairedData, paired
    from svae.data.tabular import TabularData

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "ArrayData",
    "ArraySet",
    "Batch",
    "BatchLoader",
    "CaptionedDigits",
    "ColouredDigits",
    "DSprites",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Mixture",
    "MorphedDigits",
    "PairedData",
    "RandomAffine",
    "TabularData",
    "as_data",
    "choose",
    "paired",
    "unlabelled_images",
]

# Lightning, torchvision and scikit-learn take seconds to import: each name brings its own module.
_MODULES = {
    "CIFAR10": "cifar10",
    "KMNIST": "mnist",
    "Mixture": "arrays",
    "MNIST": "mnist",
    "ArrayData": "module",
    "ArraySet": "arrays",
    "Batch": "batch",
    "BatchLoader": "arrays",
    "CaptionedDigits": "captioned",
    "ColouredDigits": "coloured",
    "DSprites": "dsprites",
    "Digits": "digits",
    "FashionMNIST": "mnist",
    "ImageFolder": "folder",
    "MorphedDigits": "morphed",
    "PairedData": "pairing",
    "RandomAffine": "augment",
    "TabularData": "tabular",
    "as_data": "conversion",
    "paired": "pairing",
    "choose": "choosing",
    "unlabelled_images": "folder",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""The data sets of the comparison, and how long models are trained on each."""

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["SUITES", "Suite", "loaded"]


@dataclass(frozen=True)
class Suite:
    """A data set, and how long models are trained on it.

    Args:
        source: Where the data come from.
        epochs: Passes over the training set, all phases together.
        batch_size: Examples per step.
        target: Validation accuracy that times are compared at.
        colour: Whether samples are judged in features of natural pictures.
        strength: Largest change of a pixel by an attack.
        width: Channels of the first convolution.
        gain: Whether networks read and draw gain and shape apart.
        flow_share: Share of our passes that fits the style flow.
        n_train: Training examples, taken evenly from the whole set; None takes all.
        n_test: Test examples, likewise, and validation examples.
        pooled: Pixels whose mean is one pixel, along each side.
    """

    source: str
    epochs: int
    batch_size: int = 64
    target: float = 0.97
    colour: bool = False
    strength: float = 0.1
    width: int = 16
    gain: bool = False
    flow_share: float = 0.5
    n_train: int | None = 10_000
    n_test: int | None = 2500
    pooled: int = 1


SUITES = {
    "digits": Suite(
        "scikit-learn's 8x8 digits, UCI", 30, 32, 0.95, width=32, flow_share=0.2, n_train=None
    ),
    "mnist": Suite("MNIST, LeCun et al. 1998, 10,000 of its training digits", 8),
    "fashion": Suite(
        "Fashion-MNIST, Xiao et al. 2017, 10,000 of its training pictures", 8, target=0.82
    ),
    "kmnist": Suite(
        "KMNIST, Clanuwat et al. 2018, 10,000 of its training pictures", 8, target=0.85
    ),
    "coloured": Suite(
        "MNIST, 10,000 of its training digits, each in one colour drawn at random", 8,
        target=0.95, colour=True, gain=True,
    ),
    "dsprites": Suite(
        "dSprites, Matthey et al. 2017, shape as class, 10,000 of its pictures at 32x32", 8,
        target=0.9, pooled=2,
    ),
    "cifar10": Suite(
        "CIFAR-10, Krizhevsky 2009, as far as $SVAE_DATA holds it", 12, 128, 0.5, colour=True,
        strength=4 / 255, width=48, n_train=None, n_test=5000,
    ),
}  # fmt: skip
SUITES["coloured-plain"] = replace(SUITES["coloured"], gain=False)


def loaded(name: str, seed: int, quick: bool) -> Any:
    """The data of a suite; the quick ones are cut down."""
    import torch

    import svae

    suite = SUITES[name]
    if name.startswith("coloured"):
        base = cut(svae.data.choose("mnist", seed=seed), suite)
        data: Any = svae.data.ColouredDigits(base, "uniform", seed=seed)
    else:
        data = cut(svae.data.choose(name, seed=seed), suite)
    data.batch_size = suite.batch_size
    if quick:
        data.train = data.train.subset(torch.arange(min(1000, len(data.train))))
        data.validation = data.validation.subset(torch.arange(min(300, len(data.validation))))
        data.test = data.test.subset(torch.arange(min(200, len(data.test))))
    return data


def cut(data: Any, suite: Suite) -> Any:
    """The data with as many examples, of as many pixels, as the suite takes."""
    import torch
    from torch.nn import functional

    from svae.data import ArraySet

    limits = {"train": suite.n_train, "validation": suite.n_test, "test": suite.n_test}
    for name, n in limits.items():
        part = getattr(data, name)
        if n is not None:
            part = part.evenly(n)
        if suite.pooled > 1:
            pooled = [
                functional.avg_pool2d(x.float(), suite.pooled).round().to(x.dtype)
                for x in part.x.split(1000)
            ]
            part = ArraySet(torch.cat(pooled), part.y, part.factors)
        setattr(data, name, part)
    return data

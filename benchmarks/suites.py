"""The data sets of the comparison, and how long models are trained on each."""

from dataclasses import dataclass
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
        flow_share: Share of our passes that fits the style flow.
    """

    source: str
    epochs: int
    batch_size: int = 128
    target: float = 0.97
    colour: bool = False
    strength: float = 0.1
    width: int = 16
    flow_share: float = 0.5


SUITES = {
    "digits": Suite("scikit-learn's 8x8 digits, UCI", 30, 32, 0.95, width=32, flow_share=0.2),
    "mnist": Suite("MNIST, LeCun et al. 1998", 8, target=0.98),
    "fashion": Suite("Fashion-MNIST, Xiao et al. 2017", 8, target=0.85),
    "kmnist": Suite("KMNIST, Clanuwat et al. 2018", 8, target=0.9),
    "coloured": Suite(
        "MNIST, each digit in one colour drawn at random", 8, target=0.97, colour=True
    ),
    "dsprites": Suite("dSprites, Matthey et al. 2017, shape as class", 8, target=0.95),
    "cifar10": Suite(
        "CIFAR-10, Krizhevsky 2009, as far as $SVAE_DATA holds it", 12, target=0.5, colour=True,
        strength=4 / 255, width=48,
    ),
}  # fmt: skip


def loaded(name: str, seed: int, quick: bool) -> Any:
    """The data of a suite; the quick ones are cut down."""
    import torch

    import svae

    suite = SUITES[name]
    if name == "coloured":
        base = svae.data.choose("mnist", seed=seed)
        data: Any = svae.data.ColouredDigits(base, "uniform", seed=seed)
    else:
        data = svae.data.choose(name, seed=seed)
    data.batch_size = suite.batch_size
    if quick:
        data.train = data.train.subset(torch.arange(min(1000, len(data.train))))
        data.validation = data.validation.subset(torch.arange(min(300, len(data.validation))))
        data.test = data.test.subset(torch.arange(min(200, len(data.test))))
    return data

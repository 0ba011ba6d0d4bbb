"""Small parts of translations: a target with a closed form, a network, pictures and pairs."""

from typing import Any

import torch
from torch import Tensor, nn

import svae
from svae.bridges import Vectors
from svae.data import ArrayData, ArraySet


class Shift(nn.Module):
    """A target whose code is an affine function of its input."""

    x_shape = (3,)

    def encode(self, x: Tensor) -> Tensor:
        return 2 * x - 1

    def decode(self, code: Tensor) -> Tensor:
        return (code + 1) / 2


def linear_pairs(n: int = 4000, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """c standard normal, y = A c + noise."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]])
    c = torch.randn(n, 2, generator=generator)
    y = c @ mix.T + noise * torch.randn(n, 3, generator=generator)
    return c, (y + 1) / 2


def small(
    target: nn.Module | None = None, source: Any = None, **more: Any
) -> svae.TranslationBridge:
    torch.manual_seed(0)
    return svae.TranslationBridge(
        source or Vectors(2), target or Shift(), n_blocks=4, hidden=(32, 32), context=16, **more
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU())
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


def pictures(n: int = 60) -> ArrayData:
    torch.manual_seed(1)
    part = ArraySet(torch.rand(n, 1, 8, 8), torch.arange(n) % 3)
    return ArrayData(part, part, part, class_names=("a", "b", "c"), batch_size=20)

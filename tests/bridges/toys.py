"""A frozen network with known concepts: what it reads, what it sees, and what it ignores."""

import torch
from torch import Tensor, nn

from svae.bridges import Frozen
from svae.data import ArrayData, ArraySet

N_CLASSES, N_SHADES = 3, 2


class Reader(nn.Module):
    """Mixes six inputs invertibly, and answers from the first two alone."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = nn.Linear(6, 6, bias=False)
        self.answer = nn.Linear(6, N_CLASSES)
        basis = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
        angles = 2 * torch.pi * torch.arange(N_CLASSES) / N_CLASSES
        readout = torch.zeros(N_CLASSES, 6)
        readout[:, 0], readout[:, 1] = angles.cos(), angles.sin()
        with torch.no_grad():
            self.mix.weight.copy_(basis)
            self.answer.weight.copy_(4 * readout @ basis.T)
            self.answer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.mix(x))


def examples(n: int, seed: int = 0) -> ArraySet:
    """Class in features 0 and 1, shade in feature 2, noise in the others."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % N_CLASSES
    shade = torch.randint(N_SHADES, (n,), generator=generator)
    x = 0.25 * torch.randn(n, 6, generator=generator)
    angle = 2 * torch.pi * y / N_CLASSES
    x[:, 0] += angle.cos()
    x[:, 1] += angle.sin()
    x[:, 2] += 2.0 * shade - 1
    return ArraySet(x, y, torch.stack([shade.float(), x[:, 3]], 1))


def data(n: int = 2000, batch_size: int = 100) -> ArrayData:
    return ArrayData(
        examples(n),
        examples(300, 1),
        examples(300, 2),
        class_names=("a", "b", "c"),
        batch_size=batch_size,
        bounded=False,
    )


def frozen() -> Frozen:
    return Frozen(Reader(), "mix", x_shape=(6,))

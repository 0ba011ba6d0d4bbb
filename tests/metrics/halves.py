"""A factorization of four-pixel pictures about which every number is known."""

import math

import torch
from torch import Tensor

from svae.latent import Latent


class Halves:
    """The class is which half is bright, the nuisance how bright it is.

    A picture (1, 2, 2) has the level .5 + .1 u in one column and 0 in the other. The nuisance is
    (u, side), of which only u should be read.

    Args:
        spread: Factor on u when decoding; the true diversity ratio.
        flips_above: The decoded side is the wrong one where the nuisance's u exceeds this.
        reads_nuisance: Decodes the side from the nuisance.
    """

    def __init__(
        self, spread: float = 1.0, flips_above: float = math.inf, reads_nuisance: bool = False
    ) -> None:
        self.spread = spread
        self.flips_above = flips_above
        self.reads_nuisance = reads_nuisance

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        left, right = x[:, 0, :, 0].mean(1), x[:, 0, :, 1].mean(1)
        side = torch.where(left > right, 1.0, -1.0)[:, None]
        u = ((left + right - 0.5) / 0.1)[:, None]
        return Latent(side, torch.cat([u, side], 1))

    def decode(self, latent: Latent) -> Tensor:
        side = (latent.z_nuisance[:, 1:] if self.reads_nuisance else latent.z_class)[:, 0]
        u = latent.z_nuisance[:, 0]
        side = torch.where(u > self.flips_above, -side, side)
        level = 0.5 + 0.1 * self.spread * u
        columns = torch.stack([level * (side > 0), level * (side <= 0)], 1)
        return columns[:, None, None, :].expand(-1, 1, 2, 2)

    def predict(self, x: Tensor) -> Tensor:
        return judge(x)

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, len(latent.z_class), 2, generator=generator)


def judge(x: Tensor) -> Tensor:
    """Logits: the brightness of the left and the right half."""
    return x[:, 0].mean(1)


def pictures(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures and their classes, in equal shares."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    # Levels are kept away from 0, where no half is bright.
    u = torch.randn(n, generator=generator).clamp(-4, 4)
    latent = Latent(1.0 - 2 * y[:, None], torch.stack([u, torch.zeros(n)], 1))
    return Halves().decode(latent), y

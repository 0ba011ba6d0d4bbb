"""What all guides share: features of one trunk or two, and scales that stay away from 0."""

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn import functional

from svae.nets import full_precision

__all__ = ["Trunks", "diagonal", "joined", "loc_scale", "positive", "width"]


class Trunks(nn.Module):
    """Features for the class latent and for the style code.

    Args:
        encoder: Maps x to features, with an integer attribute ``n_features``.
        style_encoder: The same for the style code alone; the first serves both if None.

    Raises:
        TypeError: If an encoder does not say its width.
    """

    def __init__(self, encoder: nn.Module, style_encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.style_encoder = encoder, style_encoder
        self.n_class = width(encoder)
        self.n_style = self.n_class if style_encoder is None else width(style_encoder)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = full_precision(self.encoder(x))
        if self.style_encoder is None:
            return features, features
        return features, full_precision(self.style_encoder(x))


def width(encoder: nn.Module) -> int:
    """Number of features that an encoder gives.

    Raises:
        TypeError: If it does not say so.
    """
    n_features = getattr(encoder, "n_features", None)
    if not isinstance(n_features, int):
        raise TypeError(
            "the encoder needs an integer attribute n_features, its output's width, got "
            f"{type(n_features).__name__}"
        )
    return n_features


def positive(raw: Tensor, smallest: float) -> Tensor:
    """Softplus plus a floor, against collapse of a posterior to a point."""
    return functional.softplus(raw) + smallest


def loc_scale(numbers: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
    """Two halves of a network's output as location and scale."""
    loc, raw = torch.chunk(full_precision(numbers), 2, dim=-1)
    return loc, positive(raw, smallest)


def diagonal(numbers: Tensor, smallest: float) -> TorchDistributionMixin:
    """Independent Gaussians whose location and scale are the halves of a network's output."""
    return dist.Normal(*loc_scale(numbers, smallest)).to_event(1)


def joined(features: Tensor, z: Tensor) -> Tensor:
    """Features beside a latent; draws of the latent may have a dim before the batch."""
    shape = torch.broadcast_shapes(features.shape[:-1], z.shape[:-1])
    return torch.cat([features.expand(*shape, -1), z.expand(*shape, -1)], -1)

"""Gaussians that follow from each other: style given class, and levels of style."""

from collections.abc import Sequence
from typing import ClassVar

import pyro
import torch
from jaxtyping import Float, Shaped
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from svae.guides.features import Trunks, diagonal, joined, loc_scale
from svae.latent import LatentSplit
from svae.nets import MLP
from svae.saving import Described

__all__ = ["HierarchicalGuide", "StructuredGuide"]


class StructuredGuide(Described, nn.Module):
    r"""The class latent first, the style code given it.

    .. math:: q(z_\mathrm{class} \mid x)\, q(u \mid x, z_\mathrm{class})

    Use it where what is uncertain about the class decides what the style must be: a "4" that may
    be a "9" has another slant as either. The mean of the style code is that at the mean of
    ``z_class``.

    References:
        Structured inference as in Semi-Supervised Learning with Deep Generative Models (Kingma et
        al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        encoder: Maps x to features, with an attribute ``n_features``.
        split: Numbers of class and nuisance dims.
        hidden: Widths of the hidden layers between features with ``z_class`` and the style code.
        min_scale: Lower bound of every posterior standard deviation.
        style_encoder: A trunk of its own for the style code; ``encoder`` serves both if None.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: LatentSplit,
        hidden: Sequence[int] = (128,),
        min_scale: float = 1e-3,
        style_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.trunks = Trunks(encoder, style_encoder)
        self.split, self.min_scale = split, min_scale
        self.class_of = nn.Linear(self.trunks.n_class, 2 * split.n_class)
        n_in = self.trunks.n_style + split.n_class
        self.style_of = MLP([n_in, *hidden, 2 * split.n_nuisance])

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        y: Shaped[Tensor, "batch *classes"] | None = None,
    ) -> None:
        class_features, style_features = self.trunks(x)
        with pyro.plate("batch", len(x)):
            posterior = diagonal(self.class_of(class_features), self.min_scale)
            z_class = pyro.sample("z_class", posterior)
            numbers = self.style_of(joined(style_features, z_class))
            pyro.sample("style", diagonal(numbers, self.min_scale))


class HierarchicalGuide(Described, nn.Module):
    r"""The class latent first, then the style code level by level, each given all before.

    .. math:: q(z_\mathrm{class} \mid x) \prod_{l=1}^{L} q(u_l \mid x, z_\mathrm{class},
        u_1, \dots, u_{l-1})

    Every level is a diagonal Gaussian whose location and scale are networks of all levels above,
    so the joint posterior is correlated and need not be Gaussian. Use it where the structured
    guide still leaves a gap, at the cost of one small network a level.

    References:
        Top-down inference as in Ladder Variational Autoencoders (Sønderby et al., 2016),
        https://arxiv.org/abs/1602.02282

    Args:
        encoder: Maps x to features, with an attribute ``n_features``.
        split: Numbers of class and nuisance dims.
        n_levels: Number of levels of the style code, at most its width.
        hidden: Widths of the hidden layers of every level's network.
        min_scale: Lower bound of every posterior standard deviation.
        style_encoder: A trunk of its own for the style code; ``encoder`` serves both if None.

    Raises:
        ValueError: If ``n_levels`` is not in 1..``split.n_nuisance``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: LatentSplit,
        n_levels: int = 4,
        hidden: Sequence[int] = (128,),
        min_scale: float = 1e-3,
        style_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= n_levels <= split.n_nuisance:
            raise ValueError(
                f"n_levels must be between 1 and the {split.n_nuisance} nuisance dims, "
                f"got {n_levels}"
            )
        self.trunks = Trunks(encoder, style_encoder)
        self.split, self.min_scale = split, min_scale
        self.class_of = nn.Linear(self.trunks.n_class, 2 * split.n_class)
        widths = [len(part) for part in torch.arange(split.n_nuisance).tensor_split(n_levels)]
        n_before, levels = self.trunks.n_style + split.n_class, []
        for width in widths:
            levels.append(MLP([n_before, *hidden, 2 * width]))
            n_before += width
        self.levels = nn.ModuleList(levels)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        y: Shaped[Tensor, "batch *classes"] | None = None,
    ) -> None:
        class_features, style_features = self.trunks(x)
        with pyro.plate("batch", len(x)):
            posterior = diagonal(self.class_of(class_features), self.min_scale)
            z_class = pyro.sample("z_class", posterior)
            given = joined(style_features, z_class)
            pyro.sample("style", GaussianChain(self.levels, given, self.min_scale))


class GaussianChain(TorchDistribution):
    """Levels of diagonal Gaussians, each given the features and all levels before.

    Args:
        levels: Networks from features and earlier levels to location and scale of the next.
        given: Features, ``(*batch, n)``.
        min_scale: Lower bound of every standard deviation.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector

    def __init__(self, levels: nn.ModuleList, given: Tensor, min_scale: float) -> None:
        self.levels, self.given, self.min_scale = levels, given, min_scale
        # Asked of the networks, as a level does not say how wide it is.
        n = sum(level[-1].out_features // 2 for level in levels)  # pyright: ignore
        super().__init__(given.shape[:-1], Size([n]), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "GaussianChain":
        given = self.given.expand(*batch_shape, self.given.shape[-1])
        return GaussianChain(self.levels, given, self.min_scale)

    def log_prob(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        value, given = value.expand(*shape, -1), self.given.expand(*shape, -1)
        total, done = value.new_zeros(shape), 0
        for level in self.levels:
            posterior = diagonal(level(given), self.min_scale)
            end = done + posterior.event_shape[0]
            part = value[..., done:end]
            total = total + posterior.log_prob(part)
            given, done = joined(given, part), end
        return total

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        return self._through(sample_shape, noisy=True)

    @property
    def mean(self) -> Tensor:
        """Every level at its mean given the means above; the mean itself has no closed form."""
        return self._through((), noisy=False)

    def _through(self, sample_shape: Size | tuple[int, ...], noisy: bool) -> Tensor:
        given, parts = self.given.expand(*sample_shape, *self.given.shape), []
        for level in self.levels:
            loc, scale = loc_scale(level(given), self.min_scale)
            parts.append(loc + scale * torch.randn_like(loc) if noisy else loc)
            given = joined(given, parts[-1])
        return torch.cat(parts, -1)

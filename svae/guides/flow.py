"""Posteriors that are the image of Gaussian noise under an invertible network."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import AffineTransform

from svae.flows import ActNorm, ConditionalFlow
from svae.guides.features import Trunks, diagonal, joined, loc_scale
from svae.latent import LatentSplit
from svae.priors import PushForward
from svae.saving import Described

__all__ = ["FlowGuide"]

BLOCKS = ("z_class", "style")


class FlowGuide(Described, nn.Module):
    r"""A flow of Gaussian noise, given the input, for one block or both.

    .. math:: u = m(x) + s(x) \odot \tau^{-1}(\epsilon; h(x)), \quad
        \epsilon \sim \mathcal{N}(0, I)

    Use it where the posterior is no Gaussian, and the gap between the importance-weighted bound
    and the ELBO says so. The couplings start as the identity, so it starts as the mean-field
    guide. Its mean is taken at the image of the noise's mean; rates are sampled, as they have no
    closed form.

    References:
        Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015),
        https://arxiv.org/abs/1505.05770

    Args:
        encoder: Maps x to features, with an attribute ``n_features``.
        split: Numbers of class and nuisance dims.
        blocks: Which blocks have a flow, of ``z_class`` and ``style``; the others are mean-field.
        structured: Whether the style code is drawn given ``z_class``, as in
            :class:`StructuredGuide`, through a layer of ``hidden[0]`` units.
        n_context: Features that the flow is given.
        n_blocks: Blocks of every flow.
        hidden: Widths of the hidden layers of every coupling's conditioner.
        min_scale: Lower bound of every posterior standard deviation before the flow.
        style_encoder: A trunk of its own for the style code; ``encoder`` serves both if None.

    Raises:
        ValueError: If a block is unknown, or there is none.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: LatentSplit,
        blocks: Sequence[str] = ("style",),
        structured: bool = False,
        n_context: int = 32,
        n_blocks: int = 4,
        hidden: Sequence[int] = (128, 128),
        min_scale: float = 1e-3,
        style_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not blocks or not set(blocks) <= set(BLOCKS):
            raise ValueError(f"blocks are one or both of {BLOCKS}, got {list(blocks)}")
        self.trunks = Trunks(encoder, style_encoder)
        self.split, self.blocks, self.min_scale = split, tuple(blocks), min_scale
        self.parameters_of, self.context_of = nn.ModuleDict(), nn.ModuleDict()
        self.flows = nn.ModuleDict()
        widths = (split.n_class, split.n_nuisance)
        features = (self.trunks.n_class, self.trunks.n_style)
        self.joined: nn.Module | None = None
        if structured:
            features = (self.trunks.n_class, hidden[0])
            n_in = self.trunks.n_style + split.n_class
            self.joined = nn.Sequential(nn.Linear(n_in, hidden[0]), nn.SiLU())
        for name, n, n_in in zip(BLOCKS, widths, features, strict=True):
            self.parameters_of[name] = nn.Linear(n_in, 2 * n)
            if name in blocks:
                self.context_of[name] = nn.Linear(n_in, n_context)
                flow = ConditionalFlow(n, n_context, n_blocks, hidden)
                for part in flow.modules():
                    if isinstance(part, ActNorm):  # noise is standardised from the start
                        part.initialised.fill_(True)
                self.flows[name] = flow

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        y: Shaped[Tensor, "batch *classes"] | None = None,
    ) -> None:
        class_features, features = self.trunks(x)
        with pyro.plate("batch", len(x)):
            z_class = pyro.sample("z_class", self._posterior("z_class", class_features))
            if self.joined is not None:
                features = self.joined(joined(features, z_class))
            pyro.sample("style", self._posterior("style", features))

    def _posterior(self, name: str, features: Tensor) -> TorchDistributionMixin:
        numbers = self.parameters_of[name](features)
        if name not in self.flows:
            return diagonal(numbers, self.min_scale)
        loc, scale = loc_scale(numbers, self.min_scale)
        flow, context = self.flows[name], torch.tanh(self.context_of[name](features))
        assert isinstance(flow, ConditionalFlow)
        # Remembering its last value spares the way back from a draw to its noise.
        placed = AffineTransform(loc, scale, event_dim=1, cache_size=1)
        return dist.TransformedDistribution(PushForward(flow, context), [placed])

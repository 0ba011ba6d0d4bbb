"""A chain of invertible maps: a density and a sampler."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.flows.actnorm import ActNorm
from svae.flows.bijection import Bijection, Pair
from svae.flows.coupling import Coupling
from svae.flows.mixing import Permutation, Rotation
from svae.nets import full_precision
from svae.saving import Described

__all__ = ["ConditionalFlow"]


class ConditionalFlow(Described, Bijection):
    r"""A chain of blocks, each ActNorm, two couplings that swap roles, and a mixing.

    .. math:: \log p(v \mid c) = \log \mathcal{N}(t(v; c); 0, I)
        + \log \left| \det \frac{\partial t(v; c)}{\partial v} \right|

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        features: Number of features :math:`D`, at least 1.
        context: Number of context features :math:`C`; 0 makes the flow unconditional.
        n_blocks: Number of blocks, at least 1.
        hidden: Widths of the hidden layers of every coupling's conditioner.
        max_log_scale: Bound on the log-scale of one coupling, in nats per feature.
        bins: Bins of every coupling's spline; 0 for couplings that scale and shift.
        rotate: Whether the features are mixed by a learned rotation, not a fixed permutation.
        must_start: Whether it is an error to use the flow before ActNorm has seen a first batch
            in training mode. Else ActNorm is the identity until then.
        embed: Turns what the flow is given, vectors or feature maps, into vectors of ``context``
            features, ``(*batch, *shape)`` to ``(*batch, C)``: a :class:`svae.nets.MLPEncoder` or
            :class:`svae.nets.MapEncoder`. None takes the context as it is.

    Raises:
        ValueError: If a number is out of range, or a context is missing or has another shape.
        RuntimeError: If ``must_start`` and the flow is used before it has :attr:`started`.

    Example:
        >>> flow = ConditionalFlow(features=3, context=2)
        >>> value, context = torch.randn(5, 3), torch.randn(5, 2)
        >>> noise, log_det = flow(value, context)
        >>> bool(torch.allclose(flow.inverse(noise, context)[0], value, atol=1e-5))
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        n_blocks: int = 4,
        hidden: Sequence[int] = (128, 128),
        max_log_scale: float = 3.0,
        bins: int = 0,
        rotate: bool = False,
        must_start: bool = False,
        embed: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if features < 1 or context < 0 or n_blocks < 1:
            raise ValueError(
                "a flow needs at least 1 feature, 0 context features and 1 block, got "
                f"{features}, {context} and {n_blocks}"
            )
        width = context if embed is None else getattr(embed, "n_features", context)
        if width != context or (embed is not None and not context):
            raise ValueError(
                f"embed gives {width} features and the flow takes a context of {context}: build "
                "both with the same number, at least 1"
            )
        self.features, self.context, self.embed = features, context, embed
        blocks: list[Bijection] = []
        for i in range(n_blocks):
            blocks.append(ActNorm(features, must_start=must_start))
            flips = (False, True)[: min(features, 2)]
            blocks += [
                Coupling(features, context, hidden, flip, max_log_scale, bins) for flip in flips
            ]
            blocks.append(Rotation(features, i) if rotate else Permutation(features, i))
        self.blocks = nn.ModuleList(blocks)

    @property
    def started(self) -> bool:
        """Whether every ActNorm has seen its first batch, or weights of one that had."""
        return not any(block.needs_data for block in self.blocks if isinstance(block, ActNorm))

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "..."] | None = None
    ) -> Pair:
        return self._chain(x, self.embedded(context), inverse=False)

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "..."] | None = None
    ) -> Pair:
        return self._chain(y, self.embedded(context), inverse=True)

    def embedded(self, context: Float[Tensor, "..."] | None) -> Float[Tensor, "*batch C"] | None:
        """What the couplings are given: the context, through ``embed`` where there is one."""
        return context if context is None or self.embed is None else self.embed(context)

    def _chain(self, value: Tensor, context: Tensor | None, inverse: bool) -> Pair:
        self._check(value, context)
        # Sums of many log-scales lose their digits in half precision.
        with torch.autocast(value.device.type, enabled=False):
            value = full_precision(value)
            context = None if context is None else context.to(value.dtype)
            log_det = value.new_zeros(value.shape[:-1])
            blocks = reversed(self.blocks) if inverse else self.blocks
            for block in blocks:
                assert isinstance(block, Bijection)
                value, change = block.inverse(value, context) if inverse else block(value, context)
                log_det = log_det + change
        return value, log_det

    def log_prob(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Log-density of ``x`` given ``context``, in nats."""
        noise, log_det = self(x, context)
        normaliser = 0.5 * self.features * math.log(2 * math.pi)
        return log_det - 0.5 * noise.square().sum(-1) - normaliser

    def sample(
        self,
        n: int,
        context: Float[Tensor, "..."] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n *batch D"]:
        """Draws ``n`` values for every row of ``context``, or ``n`` values where there is none."""
        first = next(self.parameters())
        context = self.embedded(context)  # once for each row, not for each draw
        batch = () if context is None else context.shape[:-1]
        noise = torch.randn(n, *batch, self.features, generator=generator, dtype=first.dtype)
        noise = noise.to(first.device)
        context = None if context is None else context.expand(n, *context.shape)
        return self._chain(noise, context, inverse=True)[0]

    def _check(self, value: Tensor, context: Tensor | None) -> None:
        if value.shape[-1] != self.features:
            raise ValueError(
                f"the flow maps vectors of {self.features} features, got {value.shape[-1]}"
            )
        width = 0 if context is None else context.shape[-1]
        if width != self.context:
            raise ValueError(
                f"the flow needs a context of {self.context} features, got "
                f"{'none' if context is None else width}. Build it with context={width} or pass "
                "the context it was built for."
            )
        if context is not None and context.shape[:-1] != value.shape[:-1]:
            raise ValueError(
                f"values come in a batch of shape {tuple(value.shape[:-1])} and contexts in one "
                f"of {tuple(context.shape[:-1])}: expand the context to a row for every value"
            )

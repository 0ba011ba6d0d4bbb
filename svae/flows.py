r"""Invertible networks: maps between a value and noise, given a context.

Everywhere in this package ``forward`` goes from value to noise and ``inverse`` from noise to
value. Both return ``(result, log_det)``, where ``log_det`` belongs to the map just applied, so
that :math:`\log p(v) = \log \mathcal{N}(\mathrm{noise}; 0, I) + \mathrm{log\_det}`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from svae.nets import full_precision
from svae.saving import Described

__all__ = ["ActNorm", "Bijection", "ConditionalFlow", "Coupling", "Permutation", "held_start"]

Pair = tuple[Tensor, Tensor]
_may_start = ContextVar("may_start", default=True)


@contextmanager
def held_start() -> Iterator[None]:
    """Inside it no map starts from its first batch: a look at codes is no training."""
    token = _may_start.set(False)
    try:
        yield
    finally:
        _may_start.reset(token)


class Bijection(nn.Module, ABC):
    """An invertible map of vectors, possibly given a context."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        """Maps value to noise; gives the noise and the map's log-determinant ``(*batch,)``."""

    @abstractmethod
    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        """Maps noise to value; gives the value and *this* map's log-determinant."""


class ActNorm(Described, Bijection):
    r"""Shifts and scales each feature: :math:`y = (x - m) e^{-s}`.

    The first batch seen **in training mode** sets m and s to its mean and log standard deviation,
    so that the output starts standardised. From then on they are ordinary parameters. Several
    processes count as one batch, so that all of them start from the same numbers.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018),
        https://arxiv.org/abs/1807.03039

    Args:
        features: Number of features.
        min_scale: Lower bound of the initial standard deviation. Without it a feature that is
            constant in the first batch would be amplified without limit.
    """

    def __init__(self, features: int, min_scale: float = 1e-2) -> None:
        super().__init__()
        self.min_scale = min_scale
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.initialised: Tensor
        self.register_buffer("initialised", torch.tensor(False))
        self._known_initialised = False  # asking the buffer waits for an accelerator

    @property
    def needs_data(self) -> bool:
        """Whether the first batch in training mode is still to come."""
        if not self._known_initialised:
            self._known_initialised = bool(self.initialised)
        return not self._known_initialised

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known_initialised = bool(self.initialised)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "*batch D"]) -> None:
        """Sets shift and scale from a batch; one example alone sets only the shift."""
        flat = x.reshape(-1, x.shape[-1])
        n = _over_processes(flat.new_tensor(len(flat)))
        loc = _over_processes(flat.sum(0)) / n
        self.loc.copy_(loc)
        if n > 1:
            variance = _over_processes((flat - loc).square().sum(0)) / (n - 1)
            self.log_scale.copy_(variance.sqrt().clamp(min=self.min_scale).log())
        self.initialised.fill_(True)
        self._known_initialised = True

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        if self.training and self.needs_data and _may_start.get():
            self.initialise(x)
        log_det = -self.log_scale.sum().expand(x.shape[:-1])
        return (x - self.loc) * (-self.log_scale).exp(), log_det

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return y * self.log_scale.exp() + self.loc, self.log_scale.sum().expand(y.shape[:-1])


def _over_processes(total: Tensor) -> Tensor:
    """The sum over the processes of a distributed run; the value itself in a single one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total


class Permutation(Described, Bijection):
    """A fixed random order of the features; log-determinant 0.

    Args:
        features: Number of features.
        seed: Seed of the order.
    """

    def __init__(self, features: int, seed: int = 0) -> None:
        super().__init__()
        order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
        self.order: Tensor
        self.undo: Tensor
        self.register_buffer("order", order)
        self.register_buffer("undo", order.argsort())

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return x[..., self.order], x.new_zeros(()).expand(x.shape[:-1])

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return y[..., self.undo], y.new_zeros(()).expand(y.shape[:-1])


class Coupling(Described, Bijection):
    r"""Scales and shifts half of the features, given the other half and the context.

    .. math:: y_a = x_a, \quad y_b = x_b \odot e^{s} + t, \quad (s, t) = \mathrm{net}(x_a, c)

    The log-determinant is :math:`\sum s`. The log-scale is soft-clamped to
    :math:`|s| < \texttt{max\_log\_scale}`, which keeps the inverse stable in float32. The map
    starts as the identity. A single feature is scaled and shifted given the context alone.

    With ``bins``, each feature of :math:`x_b` goes through a monotonic rational-quadratic spline
    on [-5, 5] instead, the identity outside of it, which can bend one mode into several.

    References:
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803;
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        features: Number of features :math:`D`.
        context: Number of context features :math:`C`; 0 makes the map unconditional.
        hidden: Widths of the conditioner's hidden layers.
        flip: Whether the first instead of the second half of the features is transformed.
        max_log_scale: Bound on :math:`|s|`, in nats per feature.
        bins: Bins of the spline; 0 for scale and shift.

    Raises:
        ValueError: If ``bins`` is negative.

    Example:
        >>> y, log_det = Coupling(features=4, context=2)(torch.randn(8, 4), torch.randn(8, 2))
        >>> y.shape, log_det.shape
        (torch.Size([8, 4]), torch.Size([8]))
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        hidden: Sequence[int] = (128, 128),
        flip: bool = False,
        max_log_scale: float = 3.0,
        bins: int = 0,
    ) -> None:
        super().__init__()
        if bins < 0:
            raise ValueError(f"bins must be at least 0, got {bins}; 0 scales and shifts")
        univariate = (
            {"univariate": MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
            if bins
            else {"univariate": partial(MonotonicAffineTransform, slope=math.exp(-max_log_scale))}
        )
        self.flip, self.first = flip, (features + 1) // 2
        kept = (torch.arange(features) < self.first) ^ flip
        self.transform = GeneralCouplingTransform(
            features,
            context,
            kept,  # pyright: ignore[reportArgumentType]
            **univariate,  # pyright: ignore[reportArgumentType]
            hidden_features=tuple(hidden),
            activation=nn.SiLU,
        )
        # zuko's linear layers are its own class; a map without any input holds its numbers in phi.
        hyper = getattr(self.transform, "hyper", None)
        last = self.transform if hyper is None else hyper[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        if isinstance(self.transform, ElementWiseTransform):
            return self.transform(context).call_and_ladj(x)
        kept, changed = self._split(x)
        changed, log_det = self._given(kept, context).call_and_ladj(changed)
        return self._merge(kept, changed), log_det

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        if isinstance(self.transform, ElementWiseTransform):
            return self.transform(context).inv.call_and_ladj(y)
        kept, changed = self._split(y)
        changed, log_det = self._given(kept, context).inv.call_and_ladj(changed)
        return self._merge(kept, changed), log_det

    def _given(self, kept: Tensor, context: Tensor | None) -> Any:
        return self.transform.meta(context, kept)  # pyright: ignore

    # Slices of halves, where zuko's own chain looks for the features of its mask in every call: a
    # shape that depends on data can neither be compiled nor replayed on an accelerator.
    def _split(self, x: Tensor) -> Pair:
        first, second = x[..., : self.first], x[..., self.first :]
        return (second, first) if self.flip else (first, second)

    def _merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([changed, kept] if self.flip else [kept, changed], dim=-1)


class ConditionalFlow(Described, Bijection):
    r"""A chain of blocks, each ActNorm, two couplings that swap roles, and a permutation.

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

    Raises:
        ValueError: If a number is out of range, or a context is missing or has another width.

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
    ) -> None:
        super().__init__()
        if features < 1 or context < 0 or n_blocks < 1:
            raise ValueError(
                "a flow needs at least 1 feature, 0 context features and 1 block, got "
                f"{features}, {context} and {n_blocks}"
            )
        self.features, self.context = features, context
        blocks: list[Bijection] = []
        for i in range(n_blocks):
            blocks.append(ActNorm(features))
            flips = (False, True)[: min(features, 2)]
            blocks += [
                Coupling(features, context, hidden, flip, max_log_scale, bins) for flip in flips
            ]
            blocks.append(Permutation(features, seed=i))
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return self._chain(x, context, inverse=False)

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return self._chain(y, context, inverse=True)

    def _chain(self, value: Tensor, context: Tensor | None, inverse: bool) -> Pair:
        context = self._checked(value, context)
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
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Log-density of ``x`` given ``context``, in nats."""
        noise, log_det = self(x, context)
        normaliser = 0.5 * self.features * math.log(2 * math.pi)
        return log_det - 0.5 * noise.square().sum(-1) - normaliser

    def sample(
        self,
        n: int,
        context: Float[Tensor, "*batch C"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n *batch D"]:
        """Draws ``n`` values for every row of ``context``, or ``n`` values where there is none."""
        first = next(self.parameters())
        batch = () if context is None else context.shape[:-1]
        noise = torch.randn(n, *batch, self.features, generator=generator, dtype=first.dtype)
        noise = noise.to(first.device)
        context = None if context is None else context.expand(n, *context.shape)
        return self.inverse(noise, context)[0]

    def _checked(self, value: Tensor, context: Tensor | None) -> Tensor | None:
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
        return context

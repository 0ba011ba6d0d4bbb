"""Maps that keep one half of the features and transform the other given it."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from svae.flows.bijection import Bijection, Pair
from svae.saving import Described

__all__ = ["Coupling"]


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

"""A shift and scale that start from the first batch."""

from typing import Any

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn

from svae.flows.bijection import Bijection, Pair
from svae.flows.starting import may_start
from svae.saving import Described

__all__ = ["ActNorm"]


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
        must_start: Whether a use before that first batch is an error. Else the map is the identity
            until then.

    Raises:
        RuntimeError: If ``must_start`` and the map is used before it has seen data.
    """

    def __init__(self, features: int, min_scale: float = 1e-2, must_start: bool = False) -> None:
        super().__init__()
        self.min_scale, self.must_start = min_scale, must_start
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
        if self.training and self.needs_data and may_start():
            self.initialise(x)
        self._check_start()
        log_det = -self.log_scale.sum().expand(x.shape[:-1])
        return (x - self.loc) * (-self.log_scale).exp(), log_det

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        self._check_start()
        return y * self.log_scale.exp() + self.loc, self.log_scale.sum().expand(y.shape[:-1])

    def _check_start(self) -> None:
        # Not the buffer while a graph is recorded: a graph cannot branch on a tensor's value.
        started = not self.must_start or self._known_initialised
        if started or not (torch.compiler.is_compiling() or self.needs_data):
            return
        raise RuntimeError(
            "the flow has not seen data yet, so its ActNorm has no shift and scale: run a forward "
            "in training mode on a batch or load weights first"
        )


def _over_processes(total: Tensor) -> Tensor:
    """The sum over the processes of a distributed run; the value itself in a single one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total

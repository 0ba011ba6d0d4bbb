"""Standard coordinates of a representation: what a flow can be fitted to."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.bridges.starting import turn
from svae.saving import Described

__all__ = ["Coordinates", "UnitsDropped"]

_DEAD = 1e-6  # of the largest standard deviation: below it a unit is constant
_PEAK = 10.0  # the largest coordinate of a training example


class UnitsDropped(UserWarning):
    """Some units of a representation are constant and take no part."""


class Coordinates(Described, nn.Module):
    r"""Representations of any shape as standardised vectors, and back.

    Up to ``max_features`` units that vary become one coordinate each, :math:`(r_i - m_i) / s_i`,
    with the standard deviation as :math:`s_i`, or a tenth of the largest deviation where that is
    more: a rectified unit that fires once in ten thousand inputs would be a hundred standard
    deviations away, where a flow is neither precise nor fitted.
    Units that are constant in the training data (dead ones of a rectifier) are dropped and
    reported with a :class:`UnitsDropped` warning. Larger representations go through a PCA: the
    first ``max_components`` principal coordinates, each divided by its standard deviation. What is
    no coordinate is the *remainder*: of dropped units the difference to their constant, which is
    zero but where new data wake one, after a PCA the difference to the projection.
    :meth:`forward` hands it over and :meth:`inverse` adds it unchanged, so that both directions
    lose nothing.

    Args:
        shape: Shape of one representation.
        max_features: Most units that are taken one by one.
        max_components: Principal components that larger representations keep.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> coordinates = Coordinates((2, 3))
        >>> representation = torch.randn(50, 2, 3)
        >>> coordinates.fit(representation)
        >>> value, remainder = coordinates(representation)
        >>> value.shape, remainder.shape
        (torch.Size([50, 6]), torch.Size([50, 0]))
        >>> torch.allclose(coordinates.inverse(value, remainder), representation, atol=1e-6)
        True
    """

    def __init__(
        self, shape: Sequence[int], max_features: int = 4096, max_components: int = 256
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.n_units = int(torch.Size(self.shape).numel())
        if self.n_units < 1 or max_features < 1 or max_components < 1:
            raise ValueError(
                "a representation needs one unit or more and max_features and max_components "
                f"must be at least 1, got {self.shape}, {max_features} and {max_components}"
            )
        self.reduced = self.n_units > max_features
        self.max_components = max_components
        self.mean: Tensor
        self.scale: Tensor
        self.kept: Tensor
        self.axes: Tensor
        self.register_buffer("mean", torch.zeros(self.n_units))
        # Their sizes are only known from data: see fit and _load_from_state_dict.
        self.register_buffer("scale", torch.zeros(0))
        self.dropped: Tensor
        self.register_buffer("kept", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("dropped", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("axes", torch.zeros(0, 0))
        self.vectors: Tensor
        self.weights: Tensor
        self.register_buffer("vectors", torch.zeros(0, 0))
        self.register_buffer("weights", torch.zeros(0, 0))

    @property
    def n_features(self) -> int:
        """Number of coordinates; 0 before :meth:`fit`."""
        return len(self.scale)

    @property
    def n_remainder(self) -> int:
        """Number of units of the remainder: all after a PCA, else those that were dropped."""
        return self.n_units if self.reduced else len(self.dropped)

    @torch.no_grad()
    def fit(self, representation: Float[Tensor, "n *shape"]) -> None:
        """Takes means, scales, dead units and principal axes from training representations.

        Raises:
            ValueError: If they have another shape, are fewer than two or not finite, or all units
                are constant.
        """
        if tuple(representation.shape[1:]) != self.shape or len(representation) < 2:
            raise ValueError(
                f"expected two or more representations of shape {self.shape}, got "
                f"{tuple(representation.shape)}"
            )
        flat = representation.detach().flatten(1).double()
        if not bool(flat.isfinite().all()):
            raise ValueError(
                "the representation has values that are not finite: look at the network's input"
            )
        mean, spread = flat.mean(0), flat.std(0)
        alive = spread > _DEAD * max(float(spread.max()), torch.finfo(torch.float32).tiny)
        if not bool(alive.any()):
            raise ValueError(
                f"all {self.n_units} units of the representation are constant in the training "
                "data: there is nothing to explain at this layer. Choose another one."
            )
        if not bool(alive.all()):
            warnings.warn(
                f"{int((~alive).sum())} of {self.n_units} units are constant in the training data "
                "and take no part: they stay as they are",
                UnitsDropped,
                stacklevel=2,
            )
        self.mean = mean.float()
        if self.reduced:
            centred = flat - mean
            q = min(self.max_components, len(flat) - 1, int(alive.sum()))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the sketch of the axes is random
                _, values, axes = torch.pca_lowrank(centred.float(), q=q, center=False, niter=4)
            scale = values / (len(flat) - 1) ** 0.5
            good = scale > _DEAD * scale.max()
            peak = (centred.float() @ axes).abs().amax(0)
            scale = torch.maximum(scale, peak / _PEAK)
            self.axes, self.scale = axes[:, good].contiguous(), scale[good]
            none = torch.zeros(0, dtype=torch.int64, device=flat.device)
            self.kept, self.dropped = none, none
        else:
            self.kept, self.dropped = alive.nonzero().flatten(), (~alive).nonzero().flatten()
            peak = (flat - mean).abs().amax(0)
            self.scale = torch.maximum(spread, peak / _PEAK)[self.kept].float()

    def forward(
        self, representation: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch D"], Float[Tensor, "batch R"]]:
        """Coordinates and remainder of representations."""
        flat = representation.flatten(1)
        if not self.reduced:
            value = (flat[:, self.kept] - self.mean[self.kept]) / self.scale
            return self._turned(value), flat[:, self.dropped] - self.mean[self.dropped]
        centred = flat - self.mean
        raw = centred @ self.axes
        return self._turned(raw / self.scale), centred - raw @ self.axes.T

    def inverse(
        self, value: Float[Tensor, "batch D"], remainder: Float[Tensor, "batch R"]
    ) -> Float[Tensor, "batch *shape"]:
        """The representation that has these coordinates and this remainder."""
        value = self._unturned(value)
        if not self.reduced:
            flat = self.mean.to(value.dtype).expand(len(value), -1)
            moved = self.mean[self.kept] + value * self.scale
            flat = flat.index_copy(1, self.kept, moved)
            flat = flat.index_copy(1, self.dropped, self.mean[self.dropped] + remainder)
        else:
            flat = self.mean + (value * self.scale) @ self.axes.T + remainder
        return flat.unflatten(1, self.shape)

    def aim(self, directions: Float[Tensor, "D k"]) -> None:
        r"""Turns the coordinates so that the first k of them lie along ``directions``.

        An orthogonal map, :math:`Q = I - V W V^\top`, so nothing is lost and volumes stay.

        Args:
            directions: Orthonormal columns.
        """
        vectors, weights = turn(directions)
        self.vectors, self.weights = vectors.to(self.scale), weights.to(self.scale)

    def _turned(self, value: Tensor) -> Tensor:
        return self._turn(value, there=True)

    def _unturned(self, value: Tensor) -> Tensor:
        return self._turn(value, there=False)

    def _turn(self, value: Tensor, there: bool) -> Tensor:
        """The value less V W V^T of it, or what that map takes to the value."""
        if not self.vectors.numel():
            return value
        # A sum over thousands of units has lost five of seven digits in single precision, and what
        # one direction loses the other does not give back. There are few columns.
        exact = value.dtype if value.device.type == "mps" else torch.float64
        vectors, weights = self.vectors.to(exact), self.weights.to(exact)
        if not there:
            # In single precision, as it is stored, the map is orthogonal to seven digits only, so
            # its transpose is no inverse of it: I + V (I - W V^T V)^-1 W V^T is (Woodbury).
            eye = torch.eye(len(weights), dtype=exact, device=weights.device)
            weights = -torch.linalg.solve(eye - weights @ (vectors.T @ vectors), weights)
        along = (value.to(exact) @ vectors) @ weights
        return value - (along @ vectors.T).to(value.dtype)

    @torch.no_grad()
    def lost(self, representation: Float[Tensor, "batch *shape"]) -> float:
        """Largest change of a unit by way of the coordinates and back."""
        return float((self.inverse(*self(representation)) - representation).abs().max())

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        for name in ("scale", "kept", "dropped", "axes", "vectors", "weights"):
            if (value := state_dict.get(prefix + name)) is not None:
                here = getattr(self, name)
                setattr(self, name, here.new_zeros(value.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # pyright: ignore
